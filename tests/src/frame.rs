//! Ethernet frames with TCP over IPv4.

const ETHERNET: usize = 14;
const IP: usize = 20;
const TCP: usize = 20;
const FIN: u8 = 1;
const RST: u8 = 4;

pub fn is_ipv4(frame: &[u8]) -> bool {
    frame.len() >= ETHERNET + IP && frame[12..14] == [8, 0]
}

pub fn is_fin(frame: &[u8]) -> bool {
    tcp(frame).is_some_and(|tcp| frame[tcp + 13] & FIN != 0)
}

/// The reset that its sender could send next, after its FIN; `None` where the frame is not such a segment.
pub fn reset_after_fin(fin: &[u8]) -> Option<Vec<u8>> {
    let tcp = tcp(fin).filter(|_| is_fin(fin))?;
    let ip_length = usize::from(u16::from_be_bytes([fin[16], fin[17]]));
    let header_end = tcp + 4 * usize::from(fin[tcp + 12] >> 4);
    let payload = (ETHERNET + ip_length).checked_sub(header_end)?;
    let seq = u32::from_be_bytes(fin.get(tcp + 4..tcp + 8)?.try_into().ok()?);

    let mut frame = fin[..ETHERNET + IP].to_vec();
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&((IP + TCP) as u16).to_be_bytes());
    frame[24..26].fill(0);
    let sum = checksum(&frame[ETHERNET..]);
    frame[24..26].copy_from_slice(&sum);
    let mut segment = [0; TCP];
    segment[..4].copy_from_slice(&fin[tcp..tcp + 4]);
    segment[4..8].copy_from_slice(&seq.wrapping_add(payload as u32 + 1).to_be_bytes());
    segment[12] = (TCP as u8 / 4) << 4;
    segment[13] = RST;
    let pseudo = [&frame[26..34], &[0, libc::IPPROTO_TCP as u8, 0, TCP as u8], &segment].concat();
    segment[16..18].copy_from_slice(&checksum(&pseudo));
    frame.extend(segment);
    Some(frame)
}

/// Where the TCP header begins.
fn tcp(frame: &[u8]) -> Option<usize> {
    let tcp = is_ipv4(frame).then(|| ETHERNET + 4 * usize::from(frame[ETHERNET] & 15))?;
    (frame[23] == libc::IPPROTO_TCP as u8 && frame.len() >= tcp + TCP).then_some(tcp)
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
