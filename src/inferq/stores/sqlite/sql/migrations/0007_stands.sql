-- How batches stand, counted without looking at them.
CREATE INDEX batch_stands ON batch (aim, reason, finished, held, sealed);
