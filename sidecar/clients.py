"""What the operator changes of the clients that the running server knows."""

from collections.abc import Callable

from sidecar.allowances import Allowances
from sidecar.bindings import Bindings
from sidecar.core.mailbox import MailUse
from sidecar.core.model import BoundBy, Client, ClientState
from sidecar.mailroom import Mailroom


class RunningClients:
    """Tells each part of the server what has changed. Fulfils adapters.admin.Binder."""

    def __init__(
        self, bindings: Bindings, allowances: Allowances, mailroom: Callable[[], Mailroom | None]
    ) -> None:
        """`mailroom` gives the one at work, if any is."""
        self._bindings = bindings
        self._allowances = allowances
        self._mailroom = mailroom

    async def bind(self, client_id: bytes, node_id: bytes | None, by: BoundBy) -> Client:
        """Say which node a client is. Raises NodeTaken, NoSuchClient, StoreUnavailable."""
        return await self._bindings.bind(client_id, node_id, by)

    def add(self, client: Client) -> None:
        """A client that was made."""
        self._allowances.note(client)
        self._bindings.add(client)

    def changed(self, client: Client) -> None:
        """A client with other limits, or paused, or resumed."""
        was_paused = self._allowances.is_paused(client.client_id)
        self._allowances.note(client)
        is_paused = client.state is ClientState.PAUSED
        if client.node_id is not None and was_paused != is_paused:
            self._turned(client.node_id, client.client_id)

    def _turned(self, node_id: bytes, client_id: bytes) -> None:
        """The client of a node was paused, or resumed."""
        if (mailroom := self._mailroom()) is None:
            return
        if self._allowances.is_paused(client_id):
            mailroom.pause(node_id)
        else:
            mailroom.resume(node_id)

    def forget(self, client_id: bytes) -> None:
        """A client is not served any more."""
        # The mailroom first: it asks whose node to hand nothing more to.
        if (mailroom := self._mailroom()) is not None:
            mailroom.forget(client_id)
        self._bindings.forget(client_id)
        self._allowances.forget(client_id)

    async def refresh(self) -> None:
        """Read all anew. Raises StoreUnavailable.

        Another sidecar may have changed something, or this one, when Redis went away before it said so.
        """
        # Last what tells who has turned: it is told once.
        await self._bindings.refresh()
        turned = await self._allowances.refresh()
        for client_id in turned:
            if (node_id := self._bindings.node_of(client_id)) is not None:
                self._turned(node_id, client_id)

    async def imported(self) -> None:
        """An import has brought all that is kept. Raises StoreUnavailable."""
        await self.refresh()
        if (mailroom := self._mailroom()) is not None:
            await mailroom.imported()

    def mail_use(self, client_id: bytes) -> MailUse | None:
        """What waits for a client."""
        mailroom = self._mailroom()
        return None if mailroom is None else mailroom.use(client_id)
