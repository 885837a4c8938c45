# Programs for the kernel: bpf(2), and classic filters on a socket of our own.
import socket

one, other = socket.socketpair()
attribute = ctypes.create_string_buffer(128)
for command in range(0, 40):
    call("bpf", command, attribute, 128, label="bpf %d" % command)
instruction = ctypes.create_string_buffer(b"\x06\x00\x00\x00\x00\x00\x00\x00")
program = (ctypes.c_ulong * 2)(1, ctypes.addressof(instruction))
for name, option in (("attach filter", 26), ("attach bpf", 50), ("reuseport cbpf", 51), ("reuseport ebpf", 52)):
    call("setsockopt", one.fileno(), 1, option, program, 16, label=name)
report()
