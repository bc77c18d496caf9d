//! An engine without a disk: for tests, and for showing what the trait asks of one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::error::StoreError;
use super::kv::{Change, Direction, Engine, ReadTxn, See, Span, Table, WriteTxn};

type Tables = [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()];

/// Seven sorted maps. Reads hold a shared picture; a write replaces it.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    committed: RwLock<Arc<Tables>>,
    writer: Mutex<()>,
}

impl MemoryEngine {
    fn picture(&self) -> Arc<Tables> {
        Arc::clone(
            &self
                .committed
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl Engine for MemoryEngine {
    fn read(&self) -> Result<Box<dyn ReadTxn + '_>, StoreError> {
        Ok(Box::new(Picture(self.picture())))
    }

    fn write(&self, change: &mut Change<'_>) -> Result<(), StoreError> {
        let _one_at_a_time = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut draft = Picture(self.picture());
        change(&mut draft)?;
        *self
            .committed
            .write()
            .unwrap_or_else(PoisonError::into_inner) = draft.0;
        Ok(())
    }
}

struct Picture(Arc<Tables>);

impl ReadTxn for Picture {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0[table.index()].get(key).cloned())
    }

    fn walk(
        &self,
        table: Table,
        span: &Span,
        direction: Direction,
        see: &mut See<'_>,
    ) -> Result<(), StoreError> {
        if span.is_empty() {
            return Ok(());
        }
        let mut pairs = self.0[table.index()].range::<[u8], _>(span.as_bounds());
        loop {
            let next = match direction {
                Direction::Forward => pairs.next(),
                Direction::Backward => pairs.next_back(),
            };
            let Some((key, value)) = next else {
                return Ok(());
            };
            if see(key, value)?.is_break() {
                return Ok(());
            }
        }
    }
}

impl WriteTxn for Picture {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        Arc::make_mut(&mut self.0)[table.index()].insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        Arc::make_mut(&mut self.0)[table.index()].remove(key);
        Ok(())
    }
}
