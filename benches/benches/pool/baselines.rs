//! The compared pools, each used as its documentation shows, behind one trait.

use floodtide::pool::{MappedMemory, PoolBuffer, Stats};
use std::hint::black_box;

/// The limit of the pools that have one: enough for all buffers of a bench.
const LIMIT: usize = 8 << 30;
/// The page size. Touching writes one byte per page.
const PAGE: usize = 4096;

/// A pool or its replacement. Several threads share it, unless it is for a single thread.
pub(crate) trait Baseline: Default {
    /// The name in the results.
    const NAME: &'static str;
    type Buffer<'p>
    where
        Self: 'p;

    fn get(&self, bytes: usize) -> Self::Buffer<'_>;
    /// Returns the address, which a borrower needs and the compiler must not know.
    fn address(buffer: &mut Self::Buffer<'_>) -> *const u8;
    /// Writes one byte per page.
    fn touch(buffer: &mut Self::Buffer<'_>, bytes: usize);
    /// Returns the buffer, by default by dropping it.
    #[inline(always)]
    fn give(&self, buffer: Self::Buffer<'_>) {
        drop(buffer);
    }
    /// Returns the share of borrows that existing memory served, if the pool counts it.
    fn hit_rate(&self) -> Option<f64> {
        None
    }
}

fn touch_slice(bytes: &mut [u8]) {
    bytes.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    black_box(bytes.as_ptr());
}

fn touch_spare(vec: &mut Vec<u8>, bytes: usize) {
    let spare = &mut vec.spare_capacity_mut()[..bytes];
    spare.iter_mut().step_by(PAGE).for_each(|byte| {
        byte.write(1);
    });
    black_box(spare.as_ptr());
}

fn share(hits: u64, misses: u64) -> Option<f64> {
    Some(hits as f64 / (hits + misses).max(1) as f64)
}

#[derive(Debug)]
pub(crate) struct Floodtide(floodtide::pool::Pool);

impl Default for Floodtide {
    fn default() -> Self {
        Self(floodtide::pool::Pool::builder().limit(LIMIT).memory(MappedMemory::new()).build())
    }
}

impl Baseline for Floodtide {
    const NAME: &'static str = "floodtide";
    type Buffer<'p> = PoolBuffer;

    #[inline(always)]
    fn get(&self, bytes: usize) -> PoolBuffer {
        self.0.get(bytes).expect("below the limit")
    }

    #[inline(always)]
    fn address(buffer: &mut PoolBuffer) -> *const u8 {
        buffer.as_ptr()
    }

    fn touch(buffer: &mut PoolBuffer, _: usize) {
        let mut spare = buffer.spare();
        (0..spare.len()).step_by(PAGE).for_each(|at| spare.write(at, &[1]));
        black_box(spare.as_mut_ptr());
    }

    fn hit_rate(&self) -> Option<f64> {
        let Stats { hits, misses, .. } = self.0.stats();
        share(hits, misses)
    }
}

#[derive(Debug)]
pub(crate) struct ZeropoolAlloc(zeropool::ZeroPool);

impl Default for ZeropoolAlloc {
    fn default() -> Self {
        Self(zeropool::ZeroPool::new())
    }
}

impl Baseline for ZeropoolAlloc {
    const NAME: &'static str = "zeropool alloc";
    type Buffer<'p> = zeropool::Buf<'p>;

    #[inline(always)]
    fn get(&self, bytes: usize) -> zeropool::Buf<'_> {
        self.0.alloc(bytes)
    }

    #[inline(always)]
    fn address(buffer: &mut zeropool::Buf<'_>) -> *const u8 {
        buffer.as_ptr()
    }

    fn touch(buffer: &mut zeropool::Buf<'_>, _: usize) {
        touch_slice(buffer);
    }
}

#[derive(Debug)]
pub(crate) struct ZeropoolUninit(zeropool::ZeroPool, bool);

impl Default for ZeropoolUninit {
    fn default() -> Self {
        Self(zeropool::ZeroPool::new(), false)
    }
}

impl ZeropoolUninit {
    /// A pool that counts its hits, which costs time.
    pub(crate) fn counting() -> Self {
        Self(zeropool::ZeroPool::new().track_stats(true), true)
    }
}

impl Baseline for ZeropoolUninit {
    const NAME: &'static str = "zeropool alloc_uninit";
    type Buffer<'p> = zeropool::BufUninit<'p>;

    #[inline(always)]
    fn get(&self, bytes: usize) -> zeropool::BufUninit<'_> {
        self.0.alloc_uninit(bytes)
    }

    #[inline(always)]
    fn address(buffer: &mut zeropool::BufUninit<'_>) -> *const u8 {
        buffer.as_uninit_mut().as_ptr().cast()
    }

    fn touch(buffer: &mut zeropool::BufUninit<'_>, _: usize) {
        let bytes = buffer.as_uninit_mut();
        bytes.iter_mut().step_by(PAGE).for_each(|byte| {
            byte.write(1);
        });
        black_box(bytes.as_ptr());
    }

    fn hit_rate(&self) -> Option<f64> {
        let stats = self.0.stats();
        if self.1 { share(stats.tls_hits + stats.shared_hits, stats.allocations) } else { None }
    }
}

pub(crate) struct Lifeguard(lifeguard::Pool<Vec<u8>>);

impl Default for Lifeguard {
    fn default() -> Self {
        Self(lifeguard::Pool::with_size_and_max(0, 2000))
    }
}

impl Baseline for Lifeguard {
    const NAME: &'static str = "lifeguard";
    type Buffer<'p> = lifeguard::Recycled<'p, Vec<u8>>;

    #[inline(always)]
    fn get(&self, bytes: usize) -> lifeguard::Recycled<'_, Vec<u8>> {
        let mut buffer = self.0.new();
        buffer.reserve(bytes);
        buffer
    }

    #[inline(always)]
    fn address(buffer: &mut lifeguard::Recycled<'_, Vec<u8>>) -> *const u8 {
        buffer.as_ptr()
    }

    fn touch(buffer: &mut lifeguard::Recycled<'_, Vec<u8>>, bytes: usize) {
        touch_spare(buffer, bytes);
    }
}

pub(crate) struct ObjectPool(object_pool::Pool<Vec<u8>>);

impl Default for ObjectPool {
    fn default() -> Self {
        Self(object_pool::Pool::from_vec(Vec::new()))
    }
}

impl Baseline for ObjectPool {
    const NAME: &'static str = "object-pool";
    type Buffer<'p> = object_pool::Reusable<'p, Vec<u8>>;

    #[inline(always)]
    fn get(&self, bytes: usize) -> object_pool::Reusable<'_, Vec<u8>> {
        let mut buffer = self.0.pull(Vec::new);
        buffer.reserve(bytes);
        buffer
    }

    #[inline(always)]
    fn address(buffer: &mut object_pool::Reusable<'_, Vec<u8>>) -> *const u8 {
        buffer.as_ptr()
    }

    fn touch(buffer: &mut object_pool::Reusable<'_, Vec<u8>>, bytes: usize) {
        touch_spare(buffer, bytes);
    }
}

#[derive(Debug)]
pub(crate) struct EmptyVecs;

impl opool::PoolAllocator<Vec<u8>> for EmptyVecs {
    fn allocate(&self) -> Vec<u8> {
        Vec::new()
    }
}

pub(crate) struct Opool(opool::Pool<EmptyVecs, Vec<u8>>);

impl Default for Opool {
    fn default() -> Self {
        Self(opool::Pool::new(2000, EmptyVecs))
    }
}

impl Baseline for Opool {
    const NAME: &'static str = "opool";
    type Buffer<'p> = opool::RefGuard<'p, EmptyVecs, Vec<u8>>;

    #[inline(always)]
    fn get(&self, bytes: usize) -> opool::RefGuard<'_, EmptyVecs, Vec<u8>> {
        let mut buffer = self.0.get();
        buffer.reserve(bytes);
        buffer
    }

    #[inline(always)]
    fn address(buffer: &mut opool::RefGuard<'_, EmptyVecs, Vec<u8>>) -> *const u8 {
        buffer.as_ptr()
    }

    fn touch(buffer: &mut opool::RefGuard<'_, EmptyVecs, Vec<u8>>, bytes: usize) {
        touch_spare(buffer, bytes);
    }
}

#[derive(Default)]
pub(crate) struct ShardedSlab(sharded_slab::Pool<Vec<u8>>);

impl Baseline for ShardedSlab {
    const NAME: &'static str = "sharded-slab";
    type Buffer<'p> = sharded_slab::pool::RefMut<'p, Vec<u8>>;

    #[inline(always)]
    fn get(&self, bytes: usize) -> sharded_slab::pool::RefMut<'_, Vec<u8>> {
        let mut buffer = self.0.create().expect("the slab is not full");
        buffer.reserve(bytes);
        buffer
    }

    #[inline(always)]
    fn address(buffer: &mut sharded_slab::pool::RefMut<'_, Vec<u8>>) -> *const u8 {
        buffer.as_ptr()
    }

    fn touch(buffer: &mut sharded_slab::pool::RefMut<'_, Vec<u8>>, bytes: usize) {
        touch_spare(buffer, bytes);
    }

    #[inline(always)]
    fn give(&self, buffer: sharded_slab::pool::RefMut<'_, Vec<u8>>) {
        let key = buffer.key();
        drop(buffer);
        self.0.clear(key);
    }
}

#[derive(Debug, Default)]
pub(crate) struct BytesMut;

impl Baseline for BytesMut {
    const NAME: &'static str = "BytesMut::with_capacity";
    type Buffer<'p> = bytes::BytesMut;

    #[inline(always)]
    fn get(&self, bytes: usize) -> bytes::BytesMut {
        bytes::BytesMut::with_capacity(bytes)
    }

    #[inline(always)]
    fn address(buffer: &mut bytes::BytesMut) -> *const u8 {
        buffer.as_ptr()
    }

    fn touch(buffer: &mut bytes::BytesMut, bytes: usize) {
        let spare = &mut buffer.spare_capacity_mut()[..bytes];
        spare.iter_mut().step_by(PAGE).for_each(|byte| {
            byte.write(1);
        });
        black_box(spare.as_ptr());
    }
}

#[derive(Debug, Default)]
pub(crate) struct VecAlloc;

impl Baseline for VecAlloc {
    const NAME: &'static str = "Vec::with_capacity";
    type Buffer<'p> = Vec<u8>;

    #[inline(always)]
    fn get(&self, bytes: usize) -> Vec<u8> {
        Vec::with_capacity(bytes)
    }

    #[inline(always)]
    fn address(buffer: &mut Vec<u8>) -> *const u8 {
        buffer.as_ptr()
    }

    fn touch(buffer: &mut Vec<u8>, bytes: usize) {
        touch_spare(buffer, bytes);
    }
}
