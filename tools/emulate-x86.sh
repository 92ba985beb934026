#!/bin/bash
# emulate-x86.sh [OPTIONS] BINARY [ARGS...]: runs a static x86-64 Linux binary under Bochs, on a CPU with AVX-512 and
# AMX. The first run builds the emulator under $CARDINAL_EMU (default ~/emu) from Debian's packages. See emulate.md.
set -euo pipefail
export CARDINAL_EMU=${CARDINAL_EMU:-$HOME/emu}
D=$CARDINAL_EMU/x86

setup() {
    mkdir -p "$D/bochs-src" && cd "$D"
    # g++, make, curl, xz-utils, lz4, zstd, python3, libc6-dev; as root they are installed here
    if [ "$(id -u)" = 0 ]; then apt-get install -y --no-install-recommends g++ make curl xz-utils lz4 zstd python3 libc6-dev; fi
    local mirror kernel
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -m1 '/debian/$')
    curl -fsS -o bochs.tar.xz "${mirror}pool/main/b/bochs/bochs_3.0+dfsg.orig.tar.xz"
    echo "78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b  bochs.tar.xz" | sha256sum -c
    tar xf bochs.tar.xz -C bochs-src --strip-components=1
    (cd bochs-src && python3 - <<'END'
import re
def edit(path, *subs):
    s = open(path, encoding='latin-1').read()
    for a, b in subs:
        n = len(re.findall(a, s, re.S | re.M))
        assert n >= 1, (path, a)
        s = re.sub(a, b, s, flags=re.S | re.M)
    open(path, 'w', encoding='latin-1').write(s)
# RAM images larger than one memory block.
edit('memory/misc_mem.cc', (r'ret = read\(fd, \(bx_ptr_t\) BX_MEM_THIS get_vector\(offset\), size\);',
    'unsigned long left = BX_MEM_THIS block_size - offset % BX_MEM_THIS block_size;\n'
    '    ret = read(fd, (bx_ptr_t) BX_MEM_THIS get_vector(offset), size < left ? size : left);'))
# XFD (extended feature disable): Linux offers AMX only on a CPU that has it.
edit('cpu/cpu.h', (r'Bit64u ia32_xss;', 'Bit64u ia32_xss;\n  Bit64u ia32_xfd, ia32_xfd_err;'))
edit('cpu/init.cc', (r'(msr\.ia32_xss = 0;)', r'\1\n  BX_CPU_THIS_PTR msr.ia32_xfd = BX_CPU_THIS_PTR msr.ia32_xfd_err = 0;'))
edit('cpu/cpuid.cc',
    (r'(leaf->eax \|= \(1<<3\);)', r'\1\n    if (is_cpu_extension_supported(BX_ISA_AMX))\n      leaf->eax |= (1<<4);'),
    (r'(leaf->ecx = \(cpu->ia32_xss_suppmask & \(1 << subfunction\)\) != 0;)',
     r'\1\n      if (subfunction == xcr0_t::BX_XCR0_XTILEDATA_BIT) leaf->ecx |= 4;'))
# Also IA32_MISC_ENABLE (0x1a0) with fast strings, without which Linux drops ERMS and then copies wrongly, and
# APERF and MPERF (0xe7, 0xe8), which Linux reads at every tick.
edit('cpu/msr.cc',
    (r'(\n  if \(index < BX_MSR_MAX_INDEX\) \{\n    if \(! msr_desc\[index\]\) return handle_unknown_rdmsr)', r'''
  switch (index) {
    case BX_MSR_IA32_XFD: *msr = BX_CPU_THIS_PTR msr.ia32_xfd; return true;
    case BX_MSR_IA32_XFD_ERROR: *msr = BX_CPU_THIS_PTR msr.ia32_xfd_err; return true;
    case 0x1a0: *msr = 1; return true;
    case 0xe7: case 0xe8: *msr = get_TSC(); return true;
  }
\1'''),
    (r'(\n  if \(index < BX_MSR_MAX_INDEX\) \{\n    if \(! msr_desc\[index\]\) return handle_unknown_wrmsr)', r'''
  if (index == BX_MSR_IA32_XFD || index == BX_MSR_IA32_XFD_ERROR) {
    if (val_64 & ~Bit64u(BX_XCR0_XTILEDATA_MASK)) return false;
    (index == BX_MSR_IA32_XFD ? BX_CPU_THIS_PTR msr.ia32_xfd : BX_CPU_THIS_PTR msr.ia32_xfd_err) = val_64;
    handleAvxModeChange();
    return true;
  }
\1'''))
edit('cpu/proc_ctrl.cc',
    (r'(\(~BX_CPU_THIS_PTR xcr0\.val32 & \(BX_XCR0_XTILECFG_MASK \| BX_XCR0_XTILEDATA_MASK\)\) != 0)\)\n    clear_amx_ok',
     r'\1 ||\n      (BX_CPU_THIS_PTR msr.ia32_xfd & BX_XCR0_XTILEDATA_MASK) != 0)\n    clear_amx_ok'),
    (r'(::BxNoAMX\(.*?exception\(BX_UD_EXCEPTION, 0\);.*?exception\(BX_UD_EXCEPTION, 0\);)',
     r'\1\n\n  if (BX_CPU_THIS_PTR msr.ia32_xfd & BX_XCR0_XTILEDATA_MASK) {'
     r'\n    BX_CPU_THIS_PTR msr.ia32_xfd_err |= BX_XCR0_XTILEDATA_MASK;\n    exception(BX_NM_EXCEPTION, 0);\n  }'))
edit('cpu/xsave.cc',
    (r'(Bit32u xinuse = get_xinuse_vector\(requested_feature_bitmap\));', r'\1 & ~Bit32u(BX_CPU_THIS_PTR msr.ia32_xfd);'),
    # all 16 rows of a tile are state; it is in use when any tile is; a compacted image has room for each
    # component of its format, asked for or not
    (r'row < BX_TILE_REGISTERS', 'row < BX_TILE_MAX_ROWS'),
    # in the tile configuration, words 8.. are the bytes per row and bytes 48.. the rows
    (r'(vmm16u\(8\+n\) *= BX_CPU_THIS_PTR amx->tilecfg\[n\]\.)rows;(.*?)bytes_per_row;', r'\1bytes_per_row;\2rows;'),
    (r'amx->tile_use_tracker == 0\)', 'amx->tile_use_tracker != 0)'),
    (r'\n\n        if \(format & feature_mask\)\n          offset \+= xsave_restore\[feature\]\.len;\n      \}',
     '\n      }\n\n      if (format & feature_mask)\n        offset += xsave_restore[feature].len;'))
edit('cpu/avx/amx.h', (r'AMX\(\): palette_id\(0\), start_row\(0\) \{\}', 'AMX() { clear(); }'))
# The upper half of VCVTNE2PS2BF16 read past its first source.
edit('cpu/avx/avx512_bf16.cc', (r'\(op1\.vmm32u\(n\)\);', '(op1.vmm32u(n - DWORD_ELEMENTS(len)));'))
# AMX-INT8: the signed operands are signed.
for f, names in (('DPBDSS', 'xy'), ('DPBDSU', 'x'), ('DPBDUS', 'y')):
    for v in names:
        edit('cpu/avx/amx.cc', (r'(Bit32u %s\(Bit32u x, Bit32u y\)\n\{.*?)const Bit8u %sbyte\[4\] = ([^;]*);' % (f, v),
            lambda m, v=v: m[1] + 'const Bit8s %sbyte[4] = ' % v + m[2].replace('Bit8u', 'Bit8s') + ';'))
END
    CXXFLAGS="-O2 -march=native" CFLAGS="-O2 -march=native" ./configure --enable-x86-64 --enable-cpu-level=6 \
        --enable-avx --enable-evex --enable-amx --enable-protection-keys --enable-cet --enable-uintr --enable-perfmon \
        --enable-memtype --enable-repeat-speedups --enable-fast-function-calls --enable-handlers-chaining \
        --disable-debugger --disable-docbook --disable-plugins --with-nogui
    make -j"$(nproc)")
    kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ { print $2; exit }')
    apt-get download "$kernel"
    dpkg -x "$kernel"_*.deb kernel
    python3 - kernel/boot/vmlinuz-* <<'END'
import struct,subprocess,sys
# vmlinuz -> kernel.bin (flat image for 0x1000000), entry (PVH entry point)
d=open(sys.argv[1],'rb').read()
off,ln=struct.unpack_from('<II',d,0x248)
o=((d[0x1f1] or 4)+1)*512+off
p=d[o:o+ln]
tool={b'\x02!':'lz4',b'\xfd7':'xz',b'\x28\xb5':'zstd',b'\x1f\x8b':'gzip'}[p[:2]]
v=subprocess.run([tool,'-dc'],input=p[:-4] if tool!='lz4' else p,stdout=subprocess.PIPE).stdout
phoff,=struct.unpack_from('<Q',v,32); n,=struct.unpack_from('<H',v,56)
img=bytearray(); entry=None
for i in range(n):
    t,_,fo,va,pa,fs,ms,_=struct.unpack_from('<IIQQQQQQ',v,phoff+56*i)
    if t==1:
        e=pa-0x1000000
        img.extend(bytes(max(0,e+ms-len(img)))); img[e:e+fs]=v[fo:fo+fs]
    if t==4:
        i=fo
        while i<fo+fs:
            a,b,ty=struct.unpack_from('<III',v,i); q=i+12+(a+3&~3)
            if v[i+12:i+15]==b'Xen' and ty==18: entry=int.from_bytes(v[q:q+b],'little')
            i=q+(b+3&~3)
open('kernel.bin','wb').write(img); open('entry','w').write(str(entry)); print(hex(entry),len(img))
END
    head -c 2048 /dev/zero > vga.bin
    gcc -x assembler-with-cpp -c -o rom.o - <<'END'
# Reset vector -> flat 32-bit mode -> the kernel's PVH entry point, with the
# start-info block that is loaded at 0x10000 (entry address in its last word).
        .code16
        .section .text
        .globl _start
_start: cli
        mov $2, %al
        out %al, $0x92
        .byte 0x66
        lgdt %cs:(gdtr - _start)
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        ljmpl $8, $(0xffff0000 + (pm - _start))
        .code32
pm:     mov $16, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $0x10000, %ebx
        jmp *-4(%ebx)
        .balign 8
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00008b0000000067
gdtr:   .word 31
        .long 0xffff0000 + (gdt - _start)
        .org 0xfff0
        .code16
        jmp _start
        .org 0x10000
END
    objcopy -O binary -j .text rom.o rom.bin
    gcc -O2 -static -x c -o init - <<'END'
// PID 1 of the guest: mounts, runs /emu/bin with /emu/args and /emu/env, prints the exit code, powers off.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
static char *list(const char *path, char **out, int n, int max) {
    int fd = open(path, O_RDONLY);
    char *b = malloc(1 << 16);
    int len = fd < 0 ? 0 : read(fd, b, (1 << 16) - 1);
    for (int i = 0; i < len && n < max; i += strlen(b + i) + 1) { out[n++] = b + i; b[len] = 0; }
    out[n] = 0;
    return b;
}
int main(void) {
    mkdir("/proc", 0755); mkdir("/sys", 0755); mkdir("/dev", 0755); mkdir("/tmp", 01777);
    mount("proc", "/proc", "proc", 0, 0);
    mount("sysfs", "/sys", "sysfs", 0, 0);
    mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
    int fd = open("/dev/ttyS0", O_RDWR);
    dup2(fd, 0); dup2(fd, 1); dup2(fd, 2);
    static char *args[256], *env[256];
    list("/emu/args", args, 0, 255);
    env[0] = "PATH=/bin"; env[1] = "HOME=/tmp"; env[2] = "TMPDIR=/tmp";
    list("/emu/env", env, 3, 255);
    int st = 127 << 8;
    pid_t p = fork();
    if (p == 0) {
        setsid();
        char cwd[4096] = {0};
        int c = open("/emu/cwd", O_RDONLY);
        if (c >= 0) { read(c, cwd, 4095); if (chdir(cwd)) perror(cwd); }
        execve("/emu/bin", args, env);
        perror("exec /emu/bin");
        _exit(127);
    }
    for (;;) { int s; pid_t r = wait(&s); if (r == p) { st = s; break; } if (r < 0 && errno != EINTR) break; }
    int code = WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
    dprintf(1, "\nEMU-EXIT %d\n", code);
    fsync(1);
    usleep(100000);
    iopl(3);
    for (const char *s = "Shutdown"; *s; s++) outb(*s, 0x8900);
    for (;;) pause();
}
END
    cp bochs-src/bochs bochs
}
[ -x "$D/bochs" ] || (setup) >&2

exec python3 /dev/fd/3 "$@" 3<<'END'
import argparse, os, resource, shutil, stat, struct, subprocess, sys, tempfile, time
HERE = os.environ["CARDINAL_EMU"] + "/x86"
p = argparse.ArgumentParser(prog="emulate-x86.sh", description="Runs a static x86-64 Linux binary on an emulated Sapphire Rapids.")
p.add_argument("-e", action="append", default=[], metavar="NAME=VALUE")
p.add_argument("-f", action="append", default=[], metavar="PATH", help="file or folder copied to the same absolute path in the guest")
p.add_argument("-C", default="/tmp", metavar="DIR", help="working folder in the guest")
p.add_argument("-m", type=int, default=2048, metavar="MiB")
p.add_argument("--cpu", default=os.environ.get("EMU_CPU", "sapphire_rapids"))
p.add_argument("--ips", type=int, default=50_000_000)
p.add_argument("-v", action="store_true", help="kernel messages")
p.add_argument("binary"); p.add_argument("args", nargs=argparse.REMAINDER)
a = p.parse_args()

out, dirs = [], set()
def entry(name, mode, data=b"", rdev=(0, 0)):
    n = name.encode() + b"\0"
    h = "070701" + "".join("%08x" % v for v in (len(out) + 1, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(n), 0))
    b = h.encode() + n
    b += b"\0" * (-len(b) % 4) + data
    out.append(b + b"\0" * (-len(b) % 4))
def parents(path):
    d = os.path.dirname(path.strip("/"))
    if d and d not in dirs:
        parents(d); dirs.add(d); entry(d, stat.S_IFDIR | 0o755)
def put(name, mode, data):
    parents(name); entry(name.strip("/"), stat.S_IFREG | mode, data)
def read(f):
    with open(f, "rb") as h: return h.read()
parents("dev/x"); entry("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1))
put("init", 0o755, read(HERE + "/init"))
put("emu/bin", 0o755, read(a.binary))
nul = lambda l: b"".join(os.fsencode(x) + b"\0" for x in l)
put("emu/args", 0o644, nul([a.binary] + a.args))
put("emu/env", 0o644, nul(a.e))
put("emu/cwd", 0o644, nul([a.C])); parents(a.C + "/x")
for f in a.f:
    f = os.path.abspath(f)
    if os.path.isdir(f):
        for d, _, fs in os.walk(f):
            parents(d + "/x")
            for x in fs:
                x = os.path.join(d, x)
                if os.path.isfile(x): put(x, 0o755, read(x))
    else: put(f, 0o755, read(f))
entry("TRAILER!!!", 0)
initrd = b"".join(out)

tmp = tempfile.mkdtemp(prefix="emulate-x86.")
MEM = a.m << 20
INITRD = (MEM - 0x200000 - len(initrd)) & ~0xfff
cmd = "console=ttyS0,115200n8 panic=-1 mitigations=off nokaslr tsc=reliable lpj=400000 acpi=off pci=off maxcpus=1 no_timer_check random.trust_cpu=on cryptomgr.notests initcall_blacklist=i8042_init,crypto_kdf108_init " + ("ignore_loglevel" if a.v else "quiet loglevel=1")
open(tmp + "/initrd", "wb").write(initrd)
entry_point = int(read(HERE + "/entry"))
BASE = 0x10000
info = struct.pack("<IIIIQQQQII", 0x336ec578, 1, 0, 1, BASE + 0x100, BASE + 0x200, 0, BASE + 0x140, 2, 0)
blk = bytearray(0x1000)
blk[0:len(info)] = info
blk[0x100:0x120] = struct.pack("<QQQQ", INITRD, len(initrd), 0, 0)
blk[0x140:0x170] = struct.pack("<QQIIQQII", 0, 0x9f000, 1, 0, 0x100000, MEM - 0x100000, 1, 0)
blk[0x200:0x200 + len(cmd) + 1] = cmd.encode() + b"\0"
open(tmp + "/info", "wb").write(struct.pack("<I", entry_point) + blk)
r, w = os.pipe()
open(tmp + "/rc", "w").write(f"""
display_library: nogui
memory: guest={a.m}, host={a.m}, block_size=8192
romimage: file={HERE}/rom.bin
vgaromimage: file={HERE}/vga.bin
optramimage1: file={HERE}/kernel.bin, address=0x1000000
optramimage2: file={tmp}/initrd, address={INITRD:#x}
optramimage3: file={tmp}/info, address={BASE - 4:#x}
cpu: model={a.cpu}, count=1, ips={a.ips}, reset_on_triple_fault=0
clock: sync=none
com1: enabled=1, mode=file, dev=/dev/fd/{w}
boot: disk
log: {tmp}/log
panic: action=fatal
error: action=report
info: action=report
debug: action=ignore
""")
t = time.time()
pr = subprocess.Popen(["nice", "-n", os.environ.get("EMU_NICE", "19"), HERE + "/bochs", "-q", "-f", tmp + "/rc"], pass_fds=[w], stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
os.close(w)
code = None
with os.fdopen(r, "rb", buffering=0) as h:
    buf = b""
    while True:
        d = h.read(65536)
        if not d: break
        buf += d.replace(b"\r\n", b"\n")
        *ls, buf = buf.split(b"\n")
        for l in ls:
            if l.startswith(b"EMU-EXIT "): code = int(l.split()[1])
            elif code is None: sys.stdout.buffer.write(l.rstrip(b"\r") + b"\n"); sys.stdout.flush()
pr.wait()
if code is None:
    sys.stdout.buffer.write(buf + b"\n")
    print(f"emulate-x86: Bochs ended ({pr.returncode}) before the program did; see {tmp}/log", file=sys.stderr)
    sys.exit(125)
if a.v:
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{time.time() - t:.1f} s, {cpu.ru_utime + cpu.ru_stime:.1f} s of CPU time", file=sys.stderr)
shutil.rmtree(tmp)
sys.exit(code)
END
