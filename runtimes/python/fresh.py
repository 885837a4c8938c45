"""An execution with a namespace of its own, as if nothing had run in the session before.

Modules that are loaded, the working directory and the files are the session's: it is the same process.
"""

import sys


def run(execute, request):
    """Executes, and puts the session's own namespace back."""
    try:
        shell = worker.get_shell()  # now, or it would be made over the namespace that goes away
    except ImportError:  # an environment without IPython
        shell = None
    kept = worker.main_module, worker.namespace, worker.inputs_seen, worker.outputs_seen, worker.last_values, worker.flags
    hook = shell and shell.displayhook
    values = hook and (hook._, hook.__, hook.___)
    worker.inputs_seen, worker.outputs_seen, worker.last_values, worker.flags = [""], {}, ("", "", ""), 0
    worker.make_main_module()
    if shell:
        namespace = worker.namespace
        namespace.update(_ih=namespace["In"], _oh=namespace["Out"], _dh=[])
        hidden = dict(shell.user_ns_hidden)
        shell.user_ns_hidden.update(namespace)
        _point(shell, ("", "", ""))
    try:
        return execute(request)
    finally:
        worker.main_module, worker.namespace, worker.inputs_seen, worker.outputs_seen, worker.last_values, worker.flags = kept
        sys.modules["__main__"] = worker.main_module
        if shell:
            shell.user_ns_hidden.clear()
            shell.user_ns_hidden.update(hidden)
            _point(shell, values)


def _point(shell, values):
    """Has IPython's shell work on the namespace that the worker has now."""
    shell.user_module, shell.user_ns = worker.main_module, worker.namespace
    hook = shell.displayhook
    hook._, hook.__, hook.___ = values
