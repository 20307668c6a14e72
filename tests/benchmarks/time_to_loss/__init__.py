"""Compare how many CPU seconds several recipes need to reach a given masked-LM loss, on the same shards.

Each contender (`entries.py`) is pretrained for the same CPU seconds in a process of its own, on one thread, and evaluated on
the same masks: those that are stored in the eval split of --data. Schedules depend on the number of steps. So the cost of a
step is measured first, and then complete schedules are run that use up the budget. Each contender's learning rate is the best
of at least three at a quarter of the budget, with a seed that isn't used again. All runs at that rate have other seeds.

The clock counts user and system time of the process, and of the compilers that it starts, within training steps: reading
(not for torch, in its favour), forward and backward pass, updates, and compiling the step. Imports, building the model,
evaluations and checkpoints are left out for all.

    python -m tests.benchmarks.time_to_loss --data corpus-128 --short-data corpus-32 --budget 1800 --seeds 3 \\
        --python HF_PYTHON
    python -m tests.benchmarks.time_to_loss --data corpus-128 --budget 600 --seeds 3 --ablation
    python -m tests.benchmarks.time_to_loss ... --downstream --cola CoLA_FOLDER --jsonl novels.jsonl.gz

Finished runs are kept in --work: a benchmark that was killed resumes. Use a new folder after a change of the code. Results are
in time_to_loss.json and time_to_loss.png there. For the contenders on torch, create an interpreter that has it:

    python -m venv WORK/hf-env && WORK/hf-env/bin/pip install torch==2.15.0 transformers==5.24.0 '.'
"""
