//! Names that the kernel keeps as a chain of nodes, read while their process is the running task: a moment later it may
//! be gone, and `/proc` with it. They are written leaf first, as the chain goes, and a chain not followed to its end
//! says nothing.

use aya_ebpf::helpers::{bpf_get_current_task, generated::bpf_probe_read_kernel_str};
use tracer_ebpf::{MISSING, NAME_BYTES, PATH_BYTES, Path};

use crate::{fields::probe, globals::field};

/// Most nodes of a chain.
const HOPS: usize = 24;

/// Path of the running task's executable as its own mount namespace has it (`mm->exe_file`, `prepend_path`).
#[inline(never)]
pub fn executable(path: &mut Path) -> Option<()> {
    (path.len, path.known) = (0, 0);
    let mount_self = field!(mount_self);
    let [task_mm, mm_exe_file] = [field!(task_mm), field!(mm_exe_file)];
    let [file_mount, file_dentry] = [field!(file_mount), field!(file_dentry)];
    let [dentry_parent, dentry_name] = [field!(dentry_parent), field!(dentry_name)];
    let [mount_root, mount_parent, mount_point] =
        [field!(mount_root), field!(mount_parent), field!(mount_point)];
    let members = [
        mount_self,
        task_mm,
        mm_exe_file,
        file_mount,
        file_dentry,
        dentry_parent,
        dentry_name,
        mount_root,
        mount_parent,
        mount_point,
    ];
    if members.contains(&MISSING) {
        return None;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let file = follow(follow(task, task_mm)?, mm_exe_file)?;
    // `struct vfsmount` is a part of `struct mount`.
    let mut mount = follow(file, file_mount)?.wrapping_sub(u64::from(mount_self));
    let mut dentry = follow(file, file_dentry)?;
    for _ in 0..HOPS {
        let root = follow(mount.wrapping_add(u64::from(mount_self)), mount_root)?;
        if dentry != root {
            push(path, follow(dentry, dentry_name)?)?;
            dentry = follow(dentry, dentry_parent)?;
            continue;
        }
        let parent = follow(mount, mount_parent)?;
        if parent == mount {
            path.known = 1;
            break;
        }
        dentry = follow(mount, mount_point)?;
        mount = parent;
    }
    Some(())
}

/// Path of the running task's control group (v2) below the hierarchy's root (`kernfs_path`).
#[inline(never)]
pub fn control_group(path: &mut Path) -> Option<()> {
    (path.len, path.known) = (0, 0);
    let [task_cgroups, css_set_cgroup, cgroup_node] =
        [field!(task_cgroups), field!(css_set_cgroup), field!(cgroup_node)];
    let [node_name, node_parent] = [field!(node_name), field!(node_parent)];
    if [task_cgroups, css_set_cgroup, cgroup_node, node_name, node_parent].contains(&MISSING) {
        return None;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let mut node = follow(follow(follow(task, task_cgroups)?, css_set_cgroup)?, cgroup_node)?;
    for _ in 0..HOPS {
        let parent = follow(node, node_parent)?;
        if parent == 0 {
            path.known = 1;
            break;
        }
        push(path, follow(node, node_name)?)?;
        node = parent;
    }
    Some(())
}

/// The pointer in a structure's member.
#[inline(always)]
fn follow(base: u64, member: u32) -> Option<u64> {
    probe(base as *const u8, member)
}

/// Appends a name and its NUL; `None` when there is no room.
#[inline(always)]
fn push(path: &mut Path, name: u64) -> Option<()> {
    let at = path.len as usize;
    if at >= PATH_BYTES {
        return None;
    }
    // SAFETY: the mask keeps the start below PATH_BYTES, and NAME_BYTES are behind that.
    let written = unsafe {
        let to = path.names.as_mut_ptr().add(at & (PATH_BYTES - 1));
        bpf_probe_read_kernel_str(to.cast(), NAME_BYTES as u32, (name as *const u8).cast())
    };
    if written <= 0 || written > NAME_BYTES as i64 {
        return None;
    }
    path.len += written as u32;
    Some(())
}
