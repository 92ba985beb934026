//! The entropy-coded bits of a scan, and its Huffman tables.

/// Reads bits from the top of a 64-bit window. Stuffed zero bytes are dropped; markers are not passed, zeros
/// come instead.
///
/// Its rare paths take and return it by value, so that it stays in registers on the others.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// The next byte that is not in the window.
    at: usize,
    window: u64,
    /// Valid bits in the window, those made up included.
    count: u32,
    /// How many of them are made up.
    made_up: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, window: 0, count: 0, made_up: 0 }
    }

    /// Makes at least 48 bits valid: enough for a code of 16 and a value of 15, and more.
    #[inline(always)]
    fn refill(&mut self) {
        const LOW: u64 = 0x0101_0101_0101_0101;
        const HIGH: u64 = 0x8080_8080_8080_8080;
        if self.count >= 32 {
            return;
        }
        if let Some(&bytes) = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_be_bytes(bytes);
            // No byte is 0xFF: the usual case. Bits beyond the valid ones are set too, and will be set to the
            // same again.
            if (!word).wrapping_sub(LOW) & word & HIGH == 0 {
                self.window |= word >> self.count;
                let taken = (63 - self.count) >> 3;
                self.at += taken as usize;
                self.count += taken * 8;
                return;
            }
        }
        *self = self.refill_by_byte();
    }

    #[cold]
    #[inline(never)]
    fn refill_by_byte(mut self) -> Self {
        while self.count <= 56 {
            let byte = match (self.data.get(self.at), self.data.get(self.at + 1)) {
                (Some(0xFF), Some(0)) => {
                    self.at += 2;
                    0xFF
                }
                (Some(0xFF), _) | (None, _) => {
                    self.made_up += 8;
                    0
                }
                (Some(&byte), _) => {
                    self.at += 1;
                    byte
                }
            };
            self.window |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
        self
    }

    #[inline(always)]
    fn consume(&mut self, bits: u32) {
        self.window <<= bits;
        self.count -= bits;
    }

    /// The next `size` bits, 1 to 15, as JPEG codes a signed value.
    #[inline(always)]
    fn value(&mut self, size: u32) -> i32 {
        let bits = (self.window >> (64 - size)) as i32;
        let negative = !(self.window as i64 >> 63) as i32;
        self.consume(size);
        bits + (negative & (1 - (1 << size)))
    }

    /// Whether more bits were read than there are before the next marker.
    #[inline(always)]
    pub(super) fn overrun(&self) -> bool {
        self.made_up > self.count
    }

    /// Passes restart marker number `index` (0 to 7), which must be next.
    pub(super) fn restart(&mut self, index: u8) -> Option<()> {
        if self.overrun() || self.count - self.made_up >= 8 {
            return None;
        }
        while self.data.get(self.at..self.at + 2) == Some(&[0xFF, 0xFF]) {
            self.at += 1;
        }
        if self.data.get(self.at..self.at + 2) != Some(&[0xFF, 0xD0 + index]) {
            return None;
        }
        *self = Self { data: self.data, at: self.at + 2, window: 0, count: 0, made_up: 0 };
        Some(())
    }
}

/// Bits that are looked up at once.
const LOOKUP: u32 = 10;

/// A Huffman table.
pub(super) struct Huffman {
    /// By the next bits: 0, or bits used (0..8), zeros before the value (8..12), bits of the value still to
    /// come (12..16), or else the value (16..32).
    lookup: Box<[u32; 1 << LOOKUP]>,
    /// By length: the first code of more bits, left-aligned to 16; and what to add to a code for its symbol.
    limits: [u32; 17],
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    /// From a DHT segment's counts by length (1 to 16) and symbols; `None` if they are no code.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut table = Self {
            lookup: Box::new([0; 1 << LOOKUP]),
            limits: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut first) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            let count = usize::from(counts[length as usize - 1]);
            table.offsets[length as usize] = first as i32 - code as i32;
            for &symbol in symbols.get(first..first + count)? {
                if code >> length != 0 {
                    return None;
                }
                if length <= LOOKUP {
                    let start = (code << (LOOKUP - length)) as usize;
                    for prefix in start..start + (1 << (LOOKUP - length)) {
                        table.lookup[prefix] = entry(prefix as u32, length, symbol);
                    }
                }
                code += 1;
            }
            first += count;
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// The symbol at the start of `next`, 16 bits, by code length; for long codes. Also that length.
    #[cold]
    #[inline(never)]
    fn search(&self, next: u32) -> Option<(u8, u32)> {
        let length = (LOOKUP + 1..=16).find(|&length| next < self.limits[length as usize])?;
        let code = (next >> (16 - length)) as i32;
        let symbol = self.symbols.get(usize::try_from(code + self.offsets[length as usize]).ok()?)?;
        Some((*symbol, length))
    }

    /// The next zeros and value: `(zeros, value)`; the value is 0 for the symbols without one.
    #[inline(always)]
    fn next(&self, bits: &mut Bits<'_>) -> Option<(u32, i32)> {
        bits.refill();
        let mut entry = self.lookup[(bits.window >> (64 - LOOKUP)) as usize];
        if entry == 0 {
            let (symbol, length) = self.search((bits.window >> 48) as u32)?;
            bits.consume(length);
            entry = u32::from(symbol) >> 4 << 8 | (u32::from(symbol) & 15) << 12;
        } else {
            bits.consume(entry & 0xFF);
        }
        let size = entry >> 12 & 15;
        let value = if size != 0 { bits.value(size) } else { entry as i32 >> 16 };
        Some((entry >> 8 & 15, value))
    }

    /// The next difference of DC values.
    #[inline(always)]
    pub(super) fn dc(&self, bits: &mut Bits<'_>) -> Option<i32> {
        let (zeros, value) = self.next(bits)?;
        (zeros == 0).then_some(value)
    }

    /// The AC coefficients of a block, in zigzag order, by `store(position, value)`; whether there are any.
    #[inline(always)]
    pub(super) fn ac(&self, bits: &mut Bits<'_>, mut store: impl FnMut(usize, i32)) -> Option<bool> {
        let mut position = 1;
        let mut any = false;
        while position < 64 {
            let (zeros, value) = self.next(bits)?;
            if value == 0 {
                match zeros {
                    15 => position += 16,
                    0 => return Some(any),
                    _ => return None,
                }
                continue;
            }
            position += zeros as usize;
            if position > 63 {
                return None;
            }
            store(position, value);
            position += 1;
            any = true;
        }
        Some(any)
    }
}

fn entry(prefix: u32, length: u32, symbol: u8) -> u32 {
    let (zeros, size) = (u32::from(symbol) >> 4, u32::from(symbol) & 15);
    if size == 0 || length + size > LOOKUP {
        return length | zeros << 8 | size << 12;
    }
    let bits = (prefix >> (LOOKUP - length - size) & ((1 << size) - 1)) as i32;
    let value = if bits >> (size - 1) == 0 { bits + 1 - (1 << size) } else { bits };
    (length + size) | zeros << 8 | (value as u32) << 16
}
