//! TensorBoard's event files: records of length, checksum, protobuf, checksum. Scalars and pictures only, so the few
//! fields are written by hand.

use std::fs::File;
use std::io::{self, Write};

/// An event file that grows record by record.
pub(super) struct EventFile {
    file: File,
}

impl EventFile {
    /// Begins a file. With `resume_step`, TensorBoard drops what earlier files hold from that step on.
    pub(super) fn begin(file: File, time: f64, resume_step: Option<u64>) -> io::Result<Self> {
        let mut events = Self { file };
        // Event: wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7.
        let mut first = event(time, 0);
        bytes_field(&mut first, 3, b"brain.Event:2");
        events.write(&first)?;
        if let Some(step) = resume_step {
            const START: u64 = 1;
            let mut log = Vec::new();
            varint_field(&mut log, 1, START);
            let mut session = event(time, step);
            bytes_field(&mut session, 7, &log);
            events.write(&session)?;
        }
        Ok(events)
    }

    /// Numbers with their tags at a step.
    pub(super) fn scalars(&mut self, time: f64, step: u64, values: &[(String, f64)]) -> io::Result<()> {
        // Summary: repeated value = 1 { tag = 1, simple_value = 2 }.
        let mut summary = Vec::new();
        for (tag, number) in values {
            let mut value = Vec::new();
            bytes_field(&mut value, 1, tag.as_bytes());
            value.push(2 << 3 | 5);
            value.extend((*number as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &value);
        }
        let mut record = event(time, step);
        bytes_field(&mut record, 5, &summary);
        self.write(&record)
    }

    /// A picture as PNG.
    pub(super) fn picture(&mut self, time: f64, tag: &str, size: (u32, u32), png: &[u8]) -> io::Result<()> {
        // Value: tag = 1, image = 4 { height = 1, width = 2, colorspace = 3, encoded = 4 }.
        let mut image = Vec::new();
        varint_field(&mut image, 1, u64::from(size.0));
        varint_field(&mut image, 2, u64::from(size.1));
        varint_field(&mut image, 3, 3);
        bytes_field(&mut image, 4, png);
        let mut value = Vec::new();
        bytes_field(&mut value, 1, tag.as_bytes());
        bytes_field(&mut value, 4, &image);
        let mut summary = Vec::new();
        bytes_field(&mut summary, 1, &value);
        let mut record = event(time, 0);
        bytes_field(&mut record, 5, &summary);
        self.write(&record)
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_crc(data).to_le_bytes());
        // In one call, so that a reader meets whole records.
        self.file.write_all(&record)
    }
}

fn event(time: f64, step: u64) -> Vec<u8> {
    let mut record = vec![1 << 3 | 1];
    record.extend(time.to_le_bytes());
    varint_field(&mut record, 2, step);
    record
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_field(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// TFRecord's checksum: CRC-32C (Castagnoli), turned and shifted so that a record may hold checksums itself.
fn masked_crc(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    let crc = !bytes.iter().fold(u32::MAX, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8);
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_castagnolis() {
        // RFC 3720, B.4: 32 zero bytes; and the nine digits' usual check value.
        let unmask = |masked: u32| masked.wrapping_sub(0xA282_EAD8).rotate_left(15);
        assert_eq!(unmask(masked_crc(&[0; 32])), 0x8A91_36AA);
        assert_eq!(unmask(masked_crc(b"123456789")), 0xE306_9283);
    }
}
