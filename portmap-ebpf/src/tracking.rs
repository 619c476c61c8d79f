//! Which connected UDP sockets were translated: the agent destroys them when their backend ends, since nothing else would
//! tell them.

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_get_socket_cookie, programs::SockContext};
use portmap_common::{Address as _, Backend, Destination, UDP, UdpSocket};

use crate::{
    maps::{self, UDP_SOCKETS},
    socket::Socket,
};

/// Begins to track a UDP socket that is being connected to a backend.
#[inline(always)]
pub fn begin<S: Socket>(socket: &S, backend: &Backend<S::Address>) {
    let tracked = UdpSocket {
        namespace: socket.namespace(),
        endpoint: backend.endpoint,
        given: Destination { address: backend.address.neutral(), port: u32::from(backend.port) },
    };
    if UDP_SOCKETS.insert(socket.cookie(), tracked, 0).is_err() {
        maps::count(|totals| totals.untracked_sockets += 1);
    }
}

/// Ends the tracking of a socket that is being connected to something else.
#[inline(always)]
pub fn end<S: Socket>(socket: &S) {
    forget(socket.cookie());
}

/// Ends the tracking of a socket that is being closed.
#[inline(always)]
pub fn closed(context: &SockContext) {
    // SAFETY: the kernel hands the hook a valid context.
    let protocol = unsafe { (*context.sock).protocol };
    if protocol == u32::from(UDP) {
        // SAFETY: the helper takes this hook's context.
        forget(unsafe { bpf_get_socket_cookie(context.as_ptr()) });
    }
}

/// It need not be there.
#[inline(always)]
fn forget(cookie: u64) {
    match UDP_SOCKETS.remove(cookie) {
        Ok(()) | Err(_) => {}
    }
}
