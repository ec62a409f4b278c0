"""What holds for every test."""

import os

# As every command has it (`streams.cli`): the threads of several processes wait for each other at full speed.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis

# No test asserts a time: on a busy machine a deadline fails what is right. The examples follow from the test, so that a
# commit passes or fails for what it changed; new ones are looked for with `make explore`.
hypothesis.settings.register_profile("salience", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, derandomize=False, max_examples=1_000, print_blob=True)
hypothesis.settings.load_profile("salience")
