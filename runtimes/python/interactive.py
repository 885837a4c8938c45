"""IPython's shell over the session's namespace: magics, rich display, help and shell commands.

Loaded at the first use of any of these. Cells run by IPython's own `run_cell`; replaced are the parts that would talk to
a terminal, start processes, keep files, or format errors in another way than executions without IPython.
"""

import re
import shlex
import sys
from contextlib import nullcontext

import _ast
from IPython.core.compilerop import CachingCompiler
from IPython.core.display_functions import display
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, magics_class
from IPython.core.magics.script import script_args
from IPython.core import magic_arguments
from IPython.utils.process import arg_split
from IPython.utils.text import LSString, SList
from traitlets import Any, Dict, Set, Type, Unicode
from traitlets.config import Config
from traitlets.config.configurable import SingletonConfigurable

PACKAGES_HINT = (
    "packages are not installed inside a session: the administrator adds them to the environment with `belljar env build`"
)
INSTALLERS = ("pip", "pip3", "conda", "mamba", "micromamba", "uv")
INSTALL_WORDS = "(?:pip +)?(?:install|uninstall|download|wheel|add|remove|sync|update|create)"
INSTALL_COMMAND = re.compile(
    r"(?:^|[;&|\n(])\s*(?:sudo +)?(?:\S*python[\d.]* +-m +)?(?:pip[\d.]*|conda|mamba|micromamba|uv) +" + INSTALL_WORDS
)
# The same refusal for the lines of a longer script.
INSTALL_PRELUDE = """\
_no_packages() { printf '%s\\n' HINT >&2; return 1; }
pip() { case "$1" in install|uninstall|download|wheel) _no_packages;; *) command pip "$@";; esac; }
pip3() { pip "$@"; }
conda() { _no_packages; }; mamba() { _no_packages; }; micromamba() { _no_packages; }; uv() { _no_packages; }
python() { if [ "$1 $2" = "-m pip" ]; then shift 2; pip "$@"; else command python "$@"; fi; }
python3() { if [ "$1 $2" = "-m pip" ]; then shift 2; pip "$@"; else command python3 "$@"; fi; }
""".replace("HINT", shlex.quote(PACKAGES_HINT))
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class _ResultHook(DisplayHook):
    """Sends the value of the last expression instead of printing it."""

    def quiet(self):
        return False  # decided before the value is computed

    def write_output_prompt(self):
        pass

    def write_format_data(self, format_dict, md_dict=None):
        data = dict(format_dict)
        text = data.pop("text/plain", None)
        if text is not None and not worker.has_result:
            worker.send_result(self._, text, data)
        elif format_dict:
            worker.send_display(format_dict, md_dict)

    def log_output(self, format_dict):
        pass

    def finish_displayhook(self):
        self._is_active = False


class _Publisher(DisplayPublisher):
    """Sends displays over the channel."""

    def publish(self, data, metadata=None, *_source, **_options):
        worker.send_display(data, metadata)

    def clear_output(self, wait=False):
        pass  # what was sent cannot be taken back


class _Compiler(CachingCompiler):
    """Names a cell as the driver does, and takes over its syntax tree."""

    def get_code_name(self, raw_code, transformed_code, number):
        if worker.shell is not None and worker.shell.cell_depth > 1:
            return super().get_code_name(raw_code, transformed_code, number)
        return worker.filename

    def cache(self, transformed_code, number=0, raw_code=None):
        self.source = transformed_code
        shown = transformed_code
        if raw_code is not None and len(raw_code.splitlines()) == len(transformed_code.splitlines()):
            shown = raw_code  # tracebacks show the magic, not the call it stands for
        name = super().cache(shown, number, raw_code)
        worker.sources[name] = shown
        return name

    def ast_parse(self, source, filename="<unknown>", symbol="exec"):
        if worker.parsed and worker.parsed[0] == source and filename == worker.filename:
            return worker.parsed[1]
        return worker.parse(source, filename)


class InlineBackend(SingletonConfigurable):
    """Takes the settings that notebooks make with `%config InlineBackend...`; figures look the same with all of them."""

    figure_format = Unicode("png").tag(config=True)
    figure_formats = Set({"png"}).tag(config=True)
    print_figure_kwargs = Dict().tag(config=True)
    rc = Dict().tag(config=True)
    close_figures = Any(True).tag(config=True)


class SandboxShell(InteractiveShell):
    """The session's shell."""

    displayhook_class = Type(_ResultHook)
    display_pub_class = Type(_Publisher)
    compiler_class = Type(_Compiler)
    cell_depth = 0
    transformed = None

    # No files of its own, no terminal

    def init_ipython_dir(self, ipython_dir):
        self.ipython_dir = "/tmp/.ipython"

    def _ipython_dir_changed(self, change):
        pass  # IPython would make the folder

    def init_profile_dir(self, profile_dir):
        self.profile_dir = None
        self._db = {}

    def init_virtualenv(self):
        pass

    def init_completer(self):
        self.Completer = None

    def init_prompts(self):
        pass  # `sys.ps1` makes packages believe in a terminal

    def init_io(self):
        pass

    def atexit_operations(self):
        pass

    def enable_gui(self, gui=None):
        pass

    def enable_matplotlib(self, gui=None):
        return "inline", "module://" + driver.PREFIX + "figures"

    def ask_exit(self):
        raise SystemExit

    def _tee(self, channel):
        return nullcontext()

    # Running

    def run_execution(self, source):
        """Runs an execution's code; its exception, or None."""
        self.execution_count = worker.number
        try:
            self.transformed = None
            self.transformed = (source, self.transform_cell(source))
        except Exception as error:
            return error
        result = self.run_cell(source, store_history=True)
        if not source.strip():
            self.execution_count = worker.number + 1
        return result.error_before_exec or result.error_in_exec

    def run_cell(self, raw_cell, *arguments, **options):
        self.cell_depth += 1
        try:
            return super().run_cell(raw_cell, *arguments, **options)
        finally:
            self.cell_depth -= 1

    def transform_cell(self, raw_cell):
        """Python stays as it is: IPython's transformers are slow on large code and may reach into strings."""
        if self.transformed and self.transformed[0] == raw_cell:
            return self.transformed[1]
        parsed = worker.parsed
        if parsed and parsed[0] == raw_cell and not self._has_own_transformers():
            if len(raw_cell.splitlines()) != 1 or not self._may_be_magic(raw_cell):
                return raw_cell
        return super().transform_cell(raw_cell)

    def _has_own_transformers(self):
        return bool(self.input_transformers_post) or len(self.input_transformer_manager.cleanup_transforms) > 4

    def _may_be_magic(self, line):
        first = re.match(r"\s*([A-Za-z_]\w*)", line)
        return bool(first) and first[1] not in self.user_ns

    def should_run_async(self, raw_cell, **_options):
        return False  # `run_steps` has an event loop where the code needs one

    async def run_ast_nodes(self, nodelist, cell_name, interactivity="last_expr", compiler=None, result=None):
        """Runs a cell's statements as executions without IPython run them."""
        try:
            steps = self._steps(list(nodelist), cell_name, interactivity)
            worker.interrupts.call(worker.run_steps, steps)
        except BaseException as error:
            if self.cell_depth > 1:
                self.showtraceback()
            if result is not None:
                result.error_in_exec = error
            return True
        return False

    def _steps(self, nodes, filename, interactivity):
        source = self.compile.source
        if interactivity == "last_expr_or_assign" and nodes and isinstance(nodes[-1], (_ast.Assign, _ast.AnnAssign)):
            target = nodes[-1].targets[0] if isinstance(nodes[-1], _ast.Assign) else nodes[-1].target
            if isinstance(target, _ast.Name):
                place = {n: getattr(nodes[-1], n) for n in ("lineno", "col_offset", "end_lineno", "end_col_offset")}
                nodes.append(_ast.Expr(_ast.Name(target.id, _ast.Load(), **place), **place))
        if interactivity == "all":
            return [step for node in nodes for step in worker.compile_steps(source, [node], filename)]
        steps = worker.compile_steps(source, nodes, filename) if nodes else []
        return [(code, False) for code, _ in steps] if interactivity == "none" else steps

    # Errors: one format for all, see errors.py

    def showtraceback(self, exc_tuple=None, *_arguments, **_options):
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        if worker.interrupts.phase == worker.interrupts.RUNNING and _hides_interrupt(error):
            raise KeyboardInterrupt from None
        if error is not None and sys._getframe(1).f_code.co_name not in ("run_cell_async", "_run_cell"):
            print(worker.load("errors").format_error(error), end="", file=sys.stderr)

    def showsyntaxerror(self, filename=None, running_compiled_code=False):
        if self.cell_depth > 1:
            self.showtraceback()

    def showindentationerror(self):
        self.showsyntaxerror()

    def _format_exception_for_storage(self, exception, *_arguments, **_options):
        return {"ename": type(exception).__name__, "evalue": "", "traceback": []}

    # Shell commands: init runs them

    def system(self, cmd):
        """Runs a command; its exit status is in `_exit_code`, as with IPython: negative for a signal."""
        self._refuse_background(cmd)
        self.user_ns["_exit_code"] = _signed(run_shell(self.var_expand(cmd, depth=1))[0])

    system_piped = system_raw = system

    def getoutput(self, cmd, split=True, depth=0):
        """Runs a command; its output as a list of lines."""
        self._refuse_background(cmd)
        status, output = run_shell(self.var_expand(cmd, depth=depth + 1), capture=True)
        self.user_ns["_exit_code"] = _signed(status)
        return SList(output.splitlines()) if split else LSString(output)

    def _refuse_background(self, cmd):
        if cmd.rstrip().endswith("&"):
            raise OSError("Background processes not supported.")


def _hides_interrupt(error):
    """Whether an exception took the place of a KeyboardInterrupt. IPython's pretty printer does that when the signal comes
    while it enters a group: its clean-up fails, and the formatter would print that error and let the code go on."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def _signed(status):
    """A shell gives 128 and the signal for a command that a signal ended; IPython takes that back."""
    return 128 - status if status > 128 else status


def run_shell(command, capture=False):
    """(exit status, captured output) of a command that init runs."""
    if INSTALL_COMMAND.search(command):
        if INSTALL_COMMAND.match(command) and not re.search(r"[;&|\n]", command.strip()):
            print(PACKAGES_HINT, file=sys.stderr)
            return 1, ""
        command = INSTALL_PRELUDE + command
    return worker.run_command(_surroundings() + command, capture)


def _surroundings():
    """What the worker changed of its directory and environment, for the command to start with."""
    import os

    lines = [
        "export %s=%s\n" % (name, shlex.quote(value))
        for name, value in os.environ.items()
        if worker.environment.get(name) != value and re.fullmatch(r"[A-Za-z_]\w*", name)
    ]
    lines += ["unset %s\n" % name for name in worker.environment if name not in os.environ]
    try:
        if os.getcwd() != worker.start_directory:
            lines.append("cd -- %s || exit 1\n" % shlex.quote(os.getcwd()))
    except OSError:
        pass
    return "".join(lines)


@magics_class
class ScriptMagics(Magics):
    """`%%bash`, `%%sh`, `%%script` and their like, run by init."""

    @magic_arguments.magic_arguments()
    @script_args
    @cell_magic("script")
    def script(self, line, cell):
        """Runs the cell with a program."""
        arguments, command = self.script.parser.parse_known_args(arg_split(line, posix=True))
        if not cell.endswith("\n"):
            cell += "\n"
        if arguments.bg:
            raise OSError("Background processes not supported.")
        status, output = run_shell(self._command(command, cell), capture=bool(arguments.out))
        if arguments.out:
            self.shell.user_ns[arguments.out] = output
        if arguments.err:
            self.shell.user_ns[arguments.err] = ""
        self.shell.user_ns["_exit_code"] = status
        if status and arguments.raise_error and not INSTALL_COMMAND.search(cell):
            from subprocess import CalledProcessError

            raise CalledProcessError(status, cell)

    def _command(self, command, cell):
        if command in (["bash"], ["sh"]):
            return cell
        mark = "END_OF_CELL"
        while mark in cell:
            mark += "_"
        return "%s <<'%s'\n%s%s\n" % (shlex.join(command), mark, cell, mark)


def _named_script(magics, program):
    def magic(line, cell):
        return magics.script("%s %s" % (program, line) if line else program, cell)

    magic.__doc__ = "Runs the cell with %s." % program
    return magic


def _no_packages(_line, _cell=None):
    """Says how packages are added."""
    print(PACKAGES_HINT, file=sys.stderr)


def _print_page(_shell, data, start=0, screen_lines=0, pager_cmd=None):
    """Help goes to stdout, without colours."""
    text = data.get("text/plain", "") if isinstance(data, dict) else data
    print(ANSI.sub("", str(text)))


def make_shell(worker):
    """The session's shell, with the history that executions without IPython left."""
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = "nocolor" if "nocolor" in _colour_names() else "NoColor"
    config.InteractiveShell.autoindent = False
    config.InteractiveShell.history_length = 0
    namespace = worker.namespace
    taken = {name: namespace[name] for name in ("_", "__", "___", "exit", "quit", "open") if name in namespace}
    shell = SandboxShell.instance(config=config, user_module=worker.main_module, user_ns=namespace)
    for name in ("exit", "quit", "open"):  # the builtins do
        namespace.pop(name, None)
    shell.builtin_trap.auto_builtins = {"get_ipython": shell.get_ipython}
    namespace.update(taken)
    shell.user_ns_hidden["inputs"] = namespace.get("inputs")  # until the user gives it a value
    _adopt_history(shell, worker)
    shell.set_hook("show_in_pager", _print_page, 0)
    shell.configurables.append(InlineBackend.instance())
    _add_magics(shell)
    _add_formatters(shell)
    sys.displayhook = sys.__displayhook__
    return shell


def _colour_names():
    trait = InteractiveShell.class_traits()["colors"]
    return [str(value) for value in getattr(trait, "values", None) or ["nocolor"]]


def _adopt_history(shell, worker):
    history = shell.history_manager
    history.input_hist_parsed.extend(worker.inputs_seen[1:])
    history.input_hist_raw.extend(worker.inputs_seen[1:])
    history.output_hist.update(worker.outputs_seen)
    hook = shell.displayhook
    hook._, hook.__, hook.___ = worker.last_values
    shell.execution_count = worker.number + 1


def _add_magics(shell):
    from IPython.core.magics.script import ScriptMagics as Original

    shell.register_magics(ScriptMagics)
    magics = shell.magics_manager.registry["ScriptMagics"]
    for program in ("bash", "sh", "perl", "ruby", "python", "python2", "python3", "pypy"):
        shell.register_magic_function(_named_script(magics, program), "cell", program)
    for installer in INSTALLERS:
        shell.register_magic_function(_no_packages, "line", installer)


def _add_formatters(shell):
    """A figure that will be shown at the end anyway is not part of the result."""

    def picture(figure):
        figures = worker.load("figures")
        if shell.displayhook.is_active and figures.is_open(figure):
            return None
        data = figures.png(figure)
        figures.mark_shown(figure)
        return data

    shell.display_formatter.formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", picture)
