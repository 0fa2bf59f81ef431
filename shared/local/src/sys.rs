//! What the operating system offers and the standard library has no safe form for: the only unsafe code of the
//! workspace, one short function each.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::child::Launch;

/// The signals that this crate sends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    /// Postgres: fast shutdown, which rolls back what is open and writes a checkpoint.
    Interrupt,
    /// nats-server: orderly shutdown.
    Terminate,
    /// Postgres: at once, but taking its own children with it.
    Quit,
    /// Nothing is asked, the process ends.
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

/// Whether this process may do anything, which is when Postgres refuses to run.
pub(crate) fn is_root() -> bool {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The user this process acts as.
pub(crate) fn user_id() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() }
}

/// Sends a signal. The caller makes sure that the process was not reaped yet: its number could be another's by then.
pub(crate) fn send(pid: u32, signal: Signal) {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return };
    // SAFETY: no memory is involved. That the process has gone already is no error to anybody.
    unsafe { libc::kill(pid, signal.number()) };
}

/// Blocks until a child has ended, and leaves it unreaped: while it is a zombie its number cannot be given to another.
pub(crate) fn wait_without_reaping(pid: u32) {
    loop {
        // SAFETY: `info` is plain data, for which zeroes are a valid value, and it outlives the call.
        let result = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, pid, &mut info, libc::WEXITED | libc::WNOWAIT)
        };
        if result == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// Has the child, between fork and exec, take over its inheritance, become its user and bind its life to ours.
///
/// The death signal is bound to the *thread* that forks, hence the spawner thread in `child.rs`, and is forgotten when
/// the user changes, hence the order here.
pub(crate) fn prepare(command: &mut Command, launch: &Launch) {
    let inherited: [Option<RawFd>; 2] =
        [Some(launch.lock.as_raw_fd()), launch.directory.as_ref().map(AsRawFd::as_raw_fd)];
    let user = launch.user.as_ref().map(|user| (user.uid, user.gid));
    let death_signal = launch.on_parent_death.number();
    let parent = std::process::id();

    // SAFETY: between fork and exec only async-signal-safe calls are allowed. The closure makes system calls alone:
    // it neither allocates nor takes a lock, and all that it uses was copied into it before the fork.
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

/// Has the process that a command starts killed when the *thread* that starts it ends, however that comes about. Linux
/// only: elsewhere a child outlives a parent that was killed.
pub fn bind_to_starter(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: as in `prepare`: system calls alone, and all that is used was copied into the closure before the fork.
    unsafe {
        command.pre_exec(move || bind_to_parent(libc::SIGKILL, parent));
    }
}

#[cfg(target_os = "linux")]
fn bind_to_parent(death_signal: libc::c_int, parent: u32) -> io::Result<()> {
    // SAFETY: both are plain system calls without memory of ours.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, death_signal))?;
        // A parent that died before the line above would never be noticed.
        if u32::try_from(libc::getppid()).ok() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    Ok(())
}

/// Other systems have nothing like it: there, a child outlives a parent that was killed, and the next start says so.
#[cfg(not(target_os = "linux"))]
fn bind_to_parent(_death_signal: libc::c_int, _parent: u32) -> io::Result<()> {
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
