"""The errors this package raises on purpose, each with the exit code the command line gives it.

    FaceswapError              1
    ├── InputError             3   missing, unreadable or unsuitable photo, video or folder
    ├── NoFacesError           4   no face found, or too few to train
    │   └── AlignmentError     4   landmarks that no similarity can be estimated from
    ├── ModelError             5   no such model, not a model, or made by a newer version
    ├── OutputError            6   cannot be written: equal to an input, full or read-only disk
    │   └── BusyError         12   another process is at work on it
    ├── SettingsError          7   a setting has an impossible value, or does not fit the rest
    ├── TrainingError          8   the loss is no longer a number
    ├── TamperedError           9   a file is not as its Content Credentials were signed for
    ├── NoCredentialsError   10   a file has no Content Credentials
    ├── NotReadyError           11   doctor found what keeps this machine from swapping faces
    └── DeviceError           13   no such device here, or its memory does not suffice

Exit code 0 is success, 2 is a command-line usage error, 130 an interruption by Ctrl-C. Anything
else that escapes is a bug and keeps its traceback (exit code 1).
A message says what was needed, what came, which file, and what to do.
"""


class FaceswapError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class InputError(FaceswapError):
    """A photo, video, folder or faceset is missing, unreadable or unsuitable."""

    exit_code = 3


class NoFacesError(FaceswapError):
    """No face was found, or too few for the purpose."""

    exit_code = 4


class AlignmentError(NoFacesError):
    """Landmarks that no similarity can be estimated from: not a face after all."""


class ModelError(FaceswapError):
    """There is no such model, the file is not one of ours, or it is from a newer format."""

    exit_code = 5


class OutputError(FaceswapError):
    """An output cannot be written."""

    exit_code = 6


class BusyError(OutputError):
    """Another process is at work on an output."""

    exit_code = 12


class SettingsError(FaceswapError):
    """A setting is out of its range or contradicts another."""

    exit_code = 7


class TrainingError(FaceswapError):
    """Training cannot go on: the loss is not finite."""

    exit_code = 8


class TamperedError(FaceswapError):
    """A file, or what is said in it, was changed after it was signed."""

    exit_code = 9


class NoCredentialsError(FaceswapError):
    """A file has no Content Credentials, in it or beside it."""

    exit_code = 10


class NotReadyError(FaceswapError):
    """Something that swapping faces needs does not work on this machine."""

    exit_code = 11


class DeviceError(FaceswapError):
    """A device is not there, or its memory does not suffice."""

    exit_code = 13
