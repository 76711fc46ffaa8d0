-- upkeep.rescue, store.close: it holds nothing any more.
DELETE FROM instance WHERE number = ?
