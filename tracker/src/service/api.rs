//! The doors' view of the tracker: [`TrackerApi`] answered in process.

use async_trait::async_trait;
use dfs_client::{ClientError, TrackerApi};
use dfs_protocol::calls::{
    DatanodeRequest, FileRequest, FsckPage, FsckRequest, Nothing, PurgeRequest, RestoreRequest,
    SetAdminRequest, TrashPage, TrashRequest,
};
use dfs_protocol::factor::{FactorPage, FactorRequest};
use dfs_protocol::file::FileRecord;
use dfs_protocol::status::{ClusterStatus, DatanodeStatus, FileChunks, OkToStopRequest, Verdict};
use dfs_protocol::upload::{
    AllocateRequest, AllocateResponse, CommitRequest, CommitResponse, DeleteRequest,
    DeleteResponse, ListRequest, ListResponse, LocateRequest, LocateResponse, RenewRequest,
    RenewResponse, SuspectReplica, TransferRequest, TransferResponse,
};

use super::Tracker;

#[async_trait]
impl TrackerApi for Tracker {
    async fn allocate(&self, request: AllocateRequest) -> Result<AllocateResponse, ClientError> {
        Ok(self.place(request)?)
    }

    async fn renew(&self, request: RenewRequest) -> Result<RenewResponse, ClientError> {
        Ok(self.keep(request).await?)
    }

    async fn commit(&self, request: CommitRequest) -> Result<CommitResponse, ClientError> {
        let response = self.make_visible(request).await?;
        if let CommitResponse::Committed { file, .. } = &response {
            self.note_write(file);
        }
        Ok(response)
    }

    async fn locate(&self, request: LocateRequest) -> Result<LocateResponse, ClientError> {
        let is_read = request.locations;
        let found = self.find(request).await?;
        if is_read {
            self.note_read(&found.file);
        }
        Ok(found)
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, ClientError> {
        Ok(self.names(request).await?)
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse, ClientError> {
        Ok(self.remove(request).await?)
    }

    async fn transfer(&self, request: TransferRequest) -> Result<TransferResponse, ClientError> {
        Ok(self.relocate(request).await?)
    }

    async fn factor(&self, request: FactorRequest) -> Result<FactorPage, ClientError> {
        Ok(self.refactor(request).await?)
    }

    async fn suspect(&self, request: SuspectReplica) -> Result<Nothing, ClientError> {
        self.doubt(&request);
        Ok(Nothing {})
    }

    async fn status(&self, _: Nothing) -> Result<ClusterStatus, ClientError> {
        Ok(self.describe().await?)
    }

    async fn datanodes(&self, _: Nothing) -> Result<Vec<DatanodeStatus>, ClientError> {
        Ok(self.describe_datanodes())
    }

    async fn chunks(&self, request: FileRequest) -> Result<FileChunks, ClientError> {
        Ok(self.describe_chunks(request).await?)
    }

    async fn fsck(&self, request: FsckRequest) -> Result<FsckPage, ClientError> {
        Ok(self.check(request).await?)
    }

    async fn trash(&self, request: TrashRequest) -> Result<TrashPage, ClientError> {
        Ok(self.list_trash(request).await?)
    }

    async fn restore(&self, request: RestoreRequest) -> Result<FileRecord, ClientError> {
        Ok(self.bring_back(request).await?)
    }

    async fn purge(&self, request: PurgeRequest) -> Result<Nothing, ClientError> {
        Ok(self.purge_one(request).await?)
    }

    async fn set_admin(&self, request: SetAdminRequest) -> Result<DatanodeStatus, ClientError> {
        Ok(self.change_admin(request).await?)
    }

    async fn safe_to_remove(&self, request: DatanodeRequest) -> Result<Verdict, ClientError> {
        Ok(self.may_remove(request.id))
    }

    async fn ok_to_stop(&self, request: OkToStopRequest) -> Result<Verdict, ClientError> {
        let OkToStopRequest {
            datanodes,
            one_more,
        } = request;
        Ok(self.may_stop(&datanodes, one_more))
    }

    async fn acknowledge_partition(&self, _: Nothing) -> Result<Nothing, ClientError> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.datanodes.acknowledge_loss(now);
        state.comparison.acknowledge();
        state.returns_until = None;
        drop(state);
        tracing::warn!("an administrator says that the silent datanodes are lost: repair goes on");
        Ok(Nothing {})
    }
}
