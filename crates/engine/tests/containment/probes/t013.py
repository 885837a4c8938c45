# The mount family, old and new.
here = b"/tmp\0"
for name, arguments in {
    "mount": (None, None, None, 0, None), "umount2": (None, 0), "pivot_root": (None, None), "open_tree": (-100, None, 1),
    "move_mount": (-1, None, -1, None, 0), "fsopen": (None, 0), "fsconfig": (-1, 99, None, None, 0), "fsmount": (-1, 0, 0),
    "fspick": (-100, None, 0), "mount_setattr": (-100, None, 0, None, 0),
}.items():
    call(name, *arguments)
attempt_forked("mount tmpfs", lambda: raw(NUMBERS["mount"], b"x\0", here, b"tmpfs\0", 0, None) and None)
attempt_forked("mount proc", lambda: raw(NUMBERS["mount"], b"x\0", here, b"proc\0", 0, None) and None)
attempt_forked("remount writable", lambda: raw(NUMBERS["mount"], None, b"/\0", None, 0x20 | 0x1000, None) and None)
attempt_forked("chroot", lambda: os.chroot("/"))
report()
