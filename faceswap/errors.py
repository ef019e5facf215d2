"""The errors that this package raises on purpose, each with its exit code on the command line.

    FaceswapError              1
    ├── InputError             3   an input file or folder is missing, unreadable or unsuitable
    ├── NoFacesError           4   no face found, or too few to train on or to measure
    │   └── AlignmentError     4   no similarity transform fits the landmarks
    ├── ModelError             5   no such model, not a model, damaged, or made by a newer version
    ├── OutputError            6   an output is the input, has a wrong type, or cannot be written
    │   └── BusyError         12   another process is using it
    ├── SettingsError          7   a setting is invalid or contradicts another
    ├── TrainingError          8   the loss is not finite
    ├── TamperedError          9   a file does not match its Content Credentials, or they expired
    ├── NoCredentialsError    10   a file has no Content Credentials
    ├── NotReadyError         11   doctor found a problem that prevents face swaps
    ├── DeviceError           13   no such device, out of memory, or a worker was killed
    └── ExplicitFootageError  14   the destination looks sexually explicit, so nothing is swapped

Exit code 0 means success, 2 a usage error and 130 an interruption by Ctrl-C or SIGTERM. The command
line reports a MemoryError like a DeviceError, and an OSError that names a file like an InputError.
Any other exception is a bug and keeps its traceback (exit code 1).
A message says what was needed, what was found, which file is affected, and what to do.
"""


class FaceswapError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class InputError(FaceswapError):
    """An input file or folder is missing, unreadable or unsuitable."""

    exit_code = 3


class NoFacesError(FaceswapError):
    """No face was found, or too few to train on or to measure."""

    exit_code = 4


class AlignmentError(NoFacesError):
    """No similarity transform fits the landmarks, so this is not a face."""


class ModelError(FaceswapError):
    """The model does not exist, is not a faceswap model, is damaged, or has a newer format."""

    exit_code = 5


class OutputError(FaceswapError):
    """An output is the input, has a wrong type, or cannot be written."""

    exit_code = 6


class BusyError(OutputError):
    """Another process is using an output."""

    exit_code = 12


class SettingsError(FaceswapError):
    """A setting is invalid or contradicts another."""

    exit_code = 7


class TrainingError(FaceswapError):
    """Training cannot continue because the loss is not finite."""

    exit_code = 8


class TamperedError(FaceswapError):
    """A file or its credentials were changed after signing, or the credentials have expired."""

    exit_code = 9


class NoCredentialsError(FaceswapError):
    """A file has no Content Credentials, embedded or beside it."""

    exit_code = 10


class NotReadyError(FaceswapError):
    """``doctor`` found a problem on this machine that prevents face swaps."""

    exit_code = 11


class DeviceError(FaceswapError):
    """A device does not exist or ran out of memory, or a worker process was killed."""

    exit_code = 13


class ExplicitFootageError(FaceswapError):
    """The destination looks sexually explicit, so nothing is swapped in it."""

    exit_code = 14
