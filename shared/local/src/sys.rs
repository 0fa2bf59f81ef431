//! System calls without a safe wrapper in the standard library. This is the only unsafe code of the workspace, in
//! short functions.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::child::Launch;

/// The signals that this crate sends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    /// Postgres: fast shutdown, which rolls back open transactions and writes a checkpoint.
    Interrupt,
    /// nats-server: clean shutdown.
    Terminate,
    /// Postgres: immediate shutdown, which also stops its child processes.
    Quit,
    /// Kills the process at once.
    Kill,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Signal::Interrupt => libc::SIGINT,
            Signal::Terminate => libc::SIGTERM,
            Signal::Quit => libc::SIGQUIT,
            Signal::Kill => libc::SIGKILL,
        }
    }
}

/// Returns whether this process runs as root, in which case Postgres refuses to start.
pub(crate) fn is_root() -> bool {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Returns the effective user id of this process.
pub(crate) fn user_id() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// Sends a signal. The caller makes sure that the process is not reaped yet, because its id could be reused after
/// that.
pub(crate) fn send(pid: u32, signal: Signal) {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return };
    // SAFETY: no memory is involved. It is not an error if the process has exited already.
    unsafe { libc::kill(pid, signal.number()) };
}

/// Blocks until a child has exited and leaves it unreaped. As long as it is a zombie, its id is not reused.
pub(crate) fn wait_without_reaping(pid: u32) {
    loop {
        // SAFETY: `info` is plain data for which all zeroes is a valid value, and it outlives the call.
        let result = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, pid, &mut info, libc::WEXITED | libc::WNOWAIT)
        };
        if result == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// Lets the child, between fork and exec, inherit its files, change its user, and die with this process.
///
/// The death signal is bound to the *thread* that forks, hence the spawner thread in `child.rs`. It is reset when
/// the user changes, hence the order of the calls.
pub(crate) fn prepare(command: &mut Command, launch: &Launch) {
    let inherited: [Option<RawFd>; 2] =
        [Some(launch.lock.as_raw_fd()), launch.directory.as_ref().map(AsRawFd::as_raw_fd)];
    let user = launch.user.as_ref().map(|user| (user.uid, user.gid));
    let death_signal = launch.on_parent_death.number();
    let parent = std::process::id();

    // SAFETY: only async-signal-safe calls are allowed between fork and exec. The closure only makes system calls:
    // it does not allocate or lock, and all that it uses was copied into it before the fork.
    unsafe {
        command.pre_exec(move || {
            for descriptor in inherited.into_iter().flatten() {
                check(libc::fcntl(descriptor, libc::F_SETFD, 0))?;
            }
            if let Some((uid, gid)) = user {
                check(libc::setgroups(1, &gid))?;
                check(libc::setgid(gid))?;
                check(libc::setuid(uid))?;
            }
            bind_to_parent(death_signal, parent)
        });
    }
}

/// Makes the kernel kill the process of a command when the *thread* that starts it ends. Linux only: elsewhere the
/// child survives a parent that is killed.
pub fn bind_to_starter(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: as in `prepare`, the closure only makes system calls, and all that it uses was copied into it before
    // the fork.
    unsafe {
        command.pre_exec(move || bind_to_parent(libc::SIGKILL, parent));
    }
}

#[cfg(target_os = "linux")]
fn bind_to_parent(death_signal: libc::c_int, parent: u32) -> io::Result<()> {
    // SAFETY: both are plain system calls that use no memory of ours.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, death_signal))?;
        // If the parent died before the call above, no signal would ever come.
        if u32::try_from(libc::getppid()).ok() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    Ok(())
}

/// Other systems have no equivalent: a child survives a parent that is killed, and the next start reports it.
#[cfg(not(target_os = "linux"))]
fn bind_to_parent(_death_signal: libc::c_int, _parent: u32) -> io::Result<()> {
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
