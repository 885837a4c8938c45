# Run by environment/interpreter.rs as `python -I -S -c …`: what is this Python, and is it complete?
import json
import sys


def main():
    import sysconfig

    missing = []
    for name in ("ssl", "sqlite3", "ctypes", "zlib", "lzma", "bz2", "hashlib", "select", "mmap", "multiprocessing"):
        try:
            __import__(name)
        except Exception as error:
            missing.append("%s (%s)" % (name, error))
    with open("/proc/self/maps") as maps:
        mapped = {line.split(None, 5)[5].strip() for line in maps if len(line.split(None, 5)) == 6}
    return {
        "prefix": sys.base_prefix,
        "exec_prefix": sys.base_exec_prefix,
        "version": "%d.%d.%d" % tuple(sys.version_info[:3]),
        "minor": "%d.%d" % tuple(sys.version_info[:2]),
        "abi": str(sysconfig.get_config_var("SOABI")),
        "implementation": sys.implementation.name,
        "prerelease": sys.version_info[3] != "final",
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "debug": hasattr(sys, "gettotalrefcount"),
        "stdlib": sysconfig.get_path("stdlib"),
        "platstdlib": sysconfig.get_path("platstdlib"),
        "missing": missing,
        "libraries": sorted(path for path in mapped if ".so" in path.rpartition("/")[2]),
    }


print(json.dumps(main()))
