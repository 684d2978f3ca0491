//! The system calls that a machine may make: a list of what is allowed; all else is refused with EPERM, and `clone3` with ENOSYS, because its flags cannot
//! be looked at and C libraries then take `clone`.

use serde_json::{Value, json};

/// Reading, writing and naming files.
const FILES: &str = "access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fallocate fchdir fchmod \
    fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate getcwd getdents getdents64 getxattr \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit lchown lgetxattr link linkat \
    listxattr llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev \
    pwritev2 read readahead readlink readlinkat readv removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat statfs statx symlink symlinkat sync \
    sync_file_range syncfs tee truncate umask unlink unlinkat utime utimensat utimes vmsplice write writev ioctl";

/// Memory.
const MEMORY: &str = "brk get_mempolicy madvise map_shadow_stack membarrier memfd_create mincore mlock mlock2 mlockall mmap mprotect mremap msync munlock munlockall munmap \
    pkey_alloc pkey_free pkey_mprotect remap_file_pages rseq set_mempolicy shmat shmctl shmdt shmget semctl semget semop semtimedop msgctl msgget msgrcv msgsnd \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink";

/// Processes, users, signals and time.
const PROCESSES: &str = "alarm arch_prctl capget capset clock_getres clock_gettime clock_nanosleep execve execveat exit exit_group fork futex futex_waitv futex_wait futex_wake \
    futex_requeue get_robust_list get_thread_area getcpu getegid geteuid getgid getgroups getitimer getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid \
    getrlimit getrusage getsid gettid gettimeofday getuid ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self nanosleep pause \
    pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
    sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address setfsgid \
    setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setuid sigaltstack sysinfo tgkill time timer_create \
    timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill uname vfork wait4 waitid eventfd \
    eventfd2 signalfd signalfd4";

/// Talking and waiting.
const NETWORK: &str = "accept accept4 bind connect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old getpeername getsockname \
    getsockopt listen pipe pipe2 poll ppoll pselect6 recv recvfrom recvmmsg recvmsg select send sendmmsg sendmsg sendto setsockopt shutdown socketpair";

/// For the root of a build node: package scripts and sshd need it, and in a user namespace it reaches no further than the node.
const BUILD: &str = "chroot";

/// Flags of clone(2) that make namespaces: with one of them, a process could get capabilities that it was not given.
const NAMESPACE_FLAGS: u64 = 0x7E02_0000;

/// `personality` may ask and set what programs need (Linux, 32-bit emulation, no address randomisation), as container engines allow.
const PERSONALITIES: [u64; 4] = [0x0, 0x0008, 0x0002_0000, 0xffff_ffff];

/// The address family of virtual machine sockets, which would reach past network namespaces.
const AF_VSOCK: u64 = 40;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The `linux.seccomp` part of a bundle.
pub fn profile(build: bool) -> Value {
    let mut names: Vec<&str> = [FILES, MEMORY, PROCESSES, NETWORK].iter().flat_map(|list| list.split_whitespace()).collect();
    if build {
        names.extend(BUILD.split_whitespace());
    }
    let mut rules = vec![
        json!({"names": names, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}),
        json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE"}]}),
    ];
    for value in PERSONALITIES {
        rules.push(
            json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]}),
        );
    }
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "architectures": architectures(), "syscalls": rules})
}

fn architectures() -> Vec<&'static str> {
    if cfg!(target_arch = "aarch64") { vec!["SCMP_ARCH_AARCH64"] } else { vec!["SCMP_ARCH_X86_64"] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_widen_a_node_is_not_allowed() {
        let text = profile(true).to_string();
        for refused in
            ["\"mount\"", "\"unshare\"", "\"setns\"", "\"bpf\"", "\"ptrace\"", "\"keyctl\"", "\"init_module\"", "\"io_uring_setup\""]
        {
            assert!(!text.contains(refused), "{refused}");
        }
        assert!(text.contains("\"chroot\""));
        assert!(!profile(false).to_string().contains("\"chroot\""));
    }
}
