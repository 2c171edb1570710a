"""Runs a program within a seccomp profile, as a container engine would: for tests.

    seccomp.py PROFILE PROGRAM [ARGUMENT ...]

Knows what tuning/seccomp.json has: names that are allowed or answered with an error, and conditions on
masked arguments. Numbers of system calls come from the C library's headers. Exits with 77 where it
cannot know them.
"""

import ctypes
import glob
import json
import os
import platform
import re
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, AND, EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
# struct seccomp_data: nr, arch, instruction pointer, six arguments of 64 bits.
NUMBER_AT, ARGUMENTS_AT = 0, 16


def numbers():
    for header in glob.glob("/usr/include/**/asm/unistd_64.h", recursive=True):
        if platform.machine() == "x86_64":
            text = open(header).read()
            found = re.findall(r"#define __NR_(\w+)\s+(\d+)", text)
            return {name: int(number) for name, number in found}
    print("seccomp.py: no numbers of system calls for this machine", file=sys.stderr)
    sys.exit(77)


def verdict(rule):
    if rule["action"] == "SCMP_ACT_ALLOW":
        return ALLOW
    assert rule["action"] == "SCMP_ACT_ERRNO", rule
    return ERRNO | rule.get("errnoRet", 1)


def program(profile):
    """The filter, call by call: `if it is this one: answer`."""
    known = numbers()
    code = [(LOAD, 0, 0, NUMBER_AT)]
    for rule in profile["syscalls"]:
        for name in rule["names"]:
            if name not in known:
                continue
            body = [(RETURN, 0, 0, verdict(rule))]
            for condition in rule.get("args", []):
                assert condition["op"] == "SCMP_CMP_MASKED_EQ" and condition["value"] >> 32 == 0
                at = ARGUMENTS_AT + 8 * condition["index"]
                check = [(LOAD, 0, 0, at), (AND, 0, 0, condition["value"])]
                # Not as it must be: on to the default.
                refuse = [(RETURN, 0, 0, ERRNO | profile["defaultErrnoRet"])]
                body = check + [(EQUAL, 1, 0, condition["valueTwo"])] + refuse + body
            code += [(EQUAL, 0, len(body), known[name])] + body
    return code + [(RETURN, 0, 0, ERRNO | profile["defaultErrnoRet"])]


def main():
    code = program(json.load(open(sys.argv[1])))
    packed = b"".join(struct.pack("HBBI", *line) for line in code)
    room = ctypes.create_string_buffer(packed, len(packed))

    class Filter(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    whole = Filter(len(code), ctypes.cast(room, ctypes.c_void_p))
    none = ctypes.c_ulong(0)
    for option, mode, argument in [
        (PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), none),
        (PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(whole)),
    ]:
        if libc.prctl(option, mode, argument, none, none) != 0:
            sys.exit(f"seccomp.py: prctl: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[2], sys.argv[2:])


main()
