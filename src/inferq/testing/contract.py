"""What every store must do, as tests: subclass `StoreContract`, say how to open your store, and let pytest run it."""

from __future__ import annotations

from inferq.testing.contract_add import AddContract
from inferq.testing.contract_archive import ArchiveContract
from inferq.testing.contract_ask import AskContract
from inferq.testing.contract_backends import BackendContract
from inferq.testing.contract_batch import BatchContract
from inferq.testing.contract_change import ChangeContract
from inferq.testing.contract_claim import ClaimContract
from inferq.testing.contract_find import FindContract
from inferq.testing.contract_finish import FinishContract
from inferq.testing.contract_limits import LimitContract
from inferq.testing.contract_prune import PruneContract
from inferq.testing.contract_records import RecordContract
from inferq.testing.contract_shared import SharedContract
from inferq.testing.contract_stream import StreamContract
from inferq.testing.contract_upkeep import UpkeepContract


class StoreContract(
    AddContract,
    ClaimContract,
    FinishContract,
    StreamContract,
    ChangeContract,
    UpkeepContract,
    PruneContract,
    AskContract,
    FindContract,
    RecordContract,
    BatchContract,
    BackendContract,
    SharedContract,
    LimitContract,
    ArchiveContract,
):
    """The contract of `inferq.store.Store`, method by method.

    Needs pytest and pytest-asyncio with `asyncio_mode = "auto"`. pytest makes a new object of the class for each test, so that a
    fixture can keep the place of that test's truth on it:

        class TestMyStore(StoreContract):
            @pytest.fixture(autouse=True)
            def place(self, tmp_path):
                self.path = tmp_path / "store"

            async def open(self, *, clock, lease, lost_limit):
                return await open_my_store(self.path, clock=clock, lease=lease, lost_limit=lost_limit)

    The store is asked with the time of a `FakeClock`: where it renews its lease from a thread of its own, it must read the clock it
    was given. Set `shared = False` where a second opening cannot reach the same truth; the tests of two processes are then skipped.
    """
