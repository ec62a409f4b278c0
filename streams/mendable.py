"""The failures that a user can mend."""


class MendableError(RuntimeError):
    """Its message says what to do: commands end with it, and without a traceback.

    A class of its own, without imports: who reports failures must not load all that can fail.
    """
