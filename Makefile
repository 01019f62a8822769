# On a machine with a GPU, in one command: correctness first, then times; leaves gpu-check.json and gpu-check.md.
.PHONY: gpu-check
gpu-check:
	python -m tilewright gpu-check
