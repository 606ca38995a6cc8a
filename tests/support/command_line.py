"""The ``sprat`` command, run in this process."""

from sprat.cli import main


def run(capsys, *arguments):
    """Exit code, standard output and standard error of ``sprat ARGUMENTS``."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()
