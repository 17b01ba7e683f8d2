"""Errors meant for users: printed as one line, without a traceback, with a fixed exit code each."""


class SlamhmrError(Exception):
    """Anything the user can act on.

    The message is one lower-case line: what, the value, what is allowed, where, what to do.
    """

    exit_code = 2


class ConfigError(SlamhmrError):
    """A setting is unknown, has a wrong type or an impossible value."""


class InputError(SlamhmrError):
    """A file or directory of the sequence is missing, damaged or inconsistent."""


class MissingAsset(SlamhmrError):
    """A model file, package or weight that a chosen step needs cannot be found."""


class BackendError(SlamhmrError):
    """A step ran and could not produce a result that may be trusted (lost camera, nobody found)."""

    exit_code = 4


REQUEUE = 75  # exit code, EX_TEMPFAIL of sysexits.h: preempted, run again to go on


class Preempted(BaseException):
    """Somebody asked the process to stop (SIGTERM, SIGUSR1); finished work is kept.

    Like KeyboardInterrupt no error, so that no handler of errors swallows it.
    """

    exit_code = REQUEUE
