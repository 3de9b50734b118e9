"""The exception tree. Every error a user can cause or meet derives from `AmagoRayError`.

    AmagoRayError
    ├── ConfigError         a setting is wrong: the message says where, what was expected, what was found
    ├── EnvError            an environment cannot be made, or breaks its contract
    ├── SpaceError          a space that the agent cannot act in or read
    ├── DataError           stored or exchanged data is unreadable or of another schema
    │   ├── ReplacedError   another process writes this one's files by now
    │   ├── DamagedError    stored data is not what was written, or gone
    │   └── DiskFullError   there is no room: nothing was stored, and the same can be tried again
    ├── CheckpointError     a checkpoint is missing, broken, or does not fit the agent
    ├── RunDirectoryError   the run directory is taken, missing, or cannot be written
    ├── ClusterError        the Ray cluster is lost: what was learned is sound
    └── TrainingError       training cannot go on (non-finite loss, lost processes)

The command line prints the message of an `AmagoRayError` as one line and exits with code 2.
"""


class AmagoRayError(Exception):
    """Base of all errors raised on purpose by this package; the message is one readable line."""


class ConfigError(AmagoRayError):
    """A setting is wrong."""


class EnvError(AmagoRayError):
    """An environment cannot be made, or breaks its contract."""


class SpaceError(EnvError):
    """A space that the agent cannot act in or read."""


class DataError(AmagoRayError):
    """Stored or exchanged data is unreadable, or of another schema."""


class ReplacedError(DataError):
    """Another process has taken this one's place, and writes its files."""


class DamagedError(DataError):
    """Stored data is not what was written, or gone."""


class DiskFullError(DataError):
    """There is no room: nothing was stored, and the same can be tried again."""


class CheckpointError(AmagoRayError):
    """A checkpoint is missing, broken, or does not fit the agent."""


class RunDirectoryError(AmagoRayError):
    """The run directory is taken, missing, or cannot be written."""


class ClusterError(AmagoRayError):
    """The Ray cluster is lost; what was learned is sound."""


class TrainingError(AmagoRayError):
    """Training cannot go on."""


def error_line(error: BaseException) -> str:
    """What an error says, on one line: the text alone where the error is ours, else after its kind."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        # The texts of foreign errors may raise.
        text = ""
    if isinstance(error, AmagoRayError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def raised_at(error: BaseException) -> str:
    """The line that raised an error, as "file:line"; empty for one that was never raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
