"""What holds for every test."""

import hypothesis

# No test asserts a time: on a busy machine a deadline fails what is right.
hypothesis.settings.register_profile("salience", deadline=None)
hypothesis.settings.load_profile("salience")
