"""The `benchmark` command: this pipeline and plain fastai side by side on the same data, in one run.

Every side of a case runs in a process of its own, is warmed, and is then told in turn to do one repeat; the others
wait on a pipe meanwhile. Only those processes import what they measure.
"""
