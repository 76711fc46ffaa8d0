-- upkeep.rescue: everybody who uses this file.
SELECT number, name, boot, lease FROM instance
