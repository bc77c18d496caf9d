//! Uploads of empty files that had their effect. An upload with bytes is told by its chunks when it is sent again;
//! one without has nothing else to be told by (I19).

use dfs_protocol::UploadId;

use crate::store::codec::decode;
use crate::store::error::StoreError;
use crate::store::keys;
use crate::store::kv::{ReadTxn, Table, WriteTxn};

/// How many are remembered, the newest: far more than a catalog commits while a gateway still tries again. The oldest
/// one's place is taken by the next.
const REMEMBERED: u64 = 1 << 18;

/// Whether the upload had its effect before.
pub(super) fn had_effect(txn: &dyn ReadTxn, upload: UploadId) -> Result<bool, StoreError> {
    Ok(txn.get(Table::Uploads, &keys::upload(upload))?.is_some())
}

/// Remembers that the upload had its effect.
pub(super) fn remember(txn: &mut dyn WriteTxn, upload: UploadId) -> Result<(), StoreError> {
    let next = txn.get(Table::Uploads, keys::NEXT_PLACE)?;
    let next: u64 = next.map_or(Ok(0), |bytes| decode("the next upload's place", &bytes))?;
    let place = keys::upload_place(next % REMEMBERED);
    if let Some(oldest) = txn.get(Table::Uploads, &place)? {
        let oldest: UploadId = decode("an upload", &oldest)?;
        txn.delete(Table::Uploads, &keys::upload(oldest))?;
    }
    keys::put(txn, Table::Uploads, &place, &upload)?;
    keys::put(txn, Table::Uploads, &keys::upload(upload), &())?;
    keys::put(txn, Table::Uploads, keys::NEXT_PLACE, &(next + 1))
}
