"""What ends a calibration: a sentence and an exit code, the same codes as the command line tool's (sysexits)."""

USAGE, REJECTED, MISSING, UNSUPPORTED, BUG, EXISTS, FAILED, LOCKED, INTERRUPTED = 2, 65, 66, 69, 70, 73, 74, 75, 130


class Refusal(Exception):
    """Nothing that is this package's fault."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def reason(error: OSError) -> str:
    return error.strerror or str(error)
