"""A song as a stream: blocks, segments, batches, network, overlap-add."""
