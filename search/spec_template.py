"""Spec template: the commented spec that `dynarch init` writes. `#option = ...` shows a default that may be changed."""

from __future__ import annotations

SPEC = """\
# A search for dynamic neural networks. Run it with: dynarch search {file}
# Every section and option may be left out. `dynarch schema` prints all of them, for editors that know JSON Schema.

[search]
name = "{name}"
seed = 0                                  # fixes everything that is random
objectives = ["accuracy", "latency_ms"]   # also latency_p95_ms, latency_worst_ms, macs, parameters; latency_ms@phone
#sampler = "tpe"                          # or nsga2, random
#rungs = true                             # stop candidates early that are beaten at every operating point
front = 12                                # most points of the front that are timed again on the device

[budget]
trials = 24                               # candidates
epochs = 18                               # of a full training
workers = 2                               # candidates trained at the same time
#cpus_per_worker = 1
#gpus_per_worker = 0                      # a share such as 0.25 lets four workers share a GPU
#minutes = 60                             # what has not started by then is not started
#candidate_minutes = 10                   # a candidate that takes longer has failed

[data]
# An embedded set (digits: images, opinions: texts, drifts: sequences), or a file or folder beside this one:
# an .npz with x and y, a .tsv.gz with label and text, a folder of pictures for each class.
source = {source}

[data.splits]                             # the rest is for training
#calibrate = 0.1                          # tempers the exits
#tune = 0.15                              # what the search looks at
#certify = 0.1                            # nothing is chosen on it
#test = 0.2                               # opened once, at the very end

[space.families.early_exit]               # a table for each family; without any, all that fit take part
max_exits = 3
#placement = "free"                       # or even_depth, even_macs
#heads = ["linear", "mlp"]

[space.training]
learning_rate = [0.003, 0.01]             # to choose from
#batch_size = 64
#shift = 1                                # images are moved by up to so many pixels
#flip = false                             # and mirrored

[devices.cpu]                             # the first device is the one that policies are tuned for
kind = "cpu"                              # or cpu_compile, cpu_onnx, cuda
#batch = 1                                # inputs at a time
#threads = 1

#[[constraints]]
#metric = "accuracy"
#minimum = 0.85
#hard = true                              # nothing that breaks it may be on the front
"""
