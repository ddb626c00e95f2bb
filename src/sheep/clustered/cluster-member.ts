import { StoreError, toStoreError } from '../../errors.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Disk } from '../../runtime/disk.ts'
import type { Log } from '../../runtime/log.ts'
import type { Connection } from '../../runtime/network.ts'
import type { Random } from '../../runtime/random.ts'
import type { GroupListener, JoinGroup, MemberId } from '../cluster/group.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { CopyHolder, LocalRead } from '../copies/copy-holder.ts'
import type { CopyAnswer, CopyRequest } from '../copies/messages.ts'
import { COPY, copyHandler } from '../copies/wire.ts'
import { type Entry, encodeEntry } from '../entries.ts'
import { Membership } from '../membership/membership.ts'
import { isVoterStep, type Life, type Member, type View } from '../membership/view.ts'
import type { ObjectStore } from '../object-store.ts'
import type { Ballot } from '../order/ballot.ts'
import { ORDER_FILE, OrderFile } from '../order/order-file.ts'
import { OrderedLog } from '../order/ordered-log.ts'
import { type Fetched, fetchFrom, fetchHandler } from '../peer/fetches.ts'
import { HEARTBEAT } from '../peer/heartbeats.ts'
import { promised } from '../peer/kind.ts'
import { type PeerAddress, PeerLinks } from '../peer/links.ts'
import { OperationDoor, RemoteSheep } from '../peer/operations.ts'
import type { PeerNetwork } from '../peer/peer-network.ts'
import { askPeer, questionHandler } from '../peer/questions.ts'
import type { Reply, SheepClient } from '../server.ts'
import { OrderedEntries } from './ordered-entries.ts'

export interface ClusterMemberOptions {
  /** Of the node's first disk: it gets the file of the ordered log. */
  disk: Disk
  store: ObjectStore
  state: ClusterState
  holder: CopyHolder
  clock: Clock
  random: Random
  log: Log
  /** How this node wants to be in views, at this moment. */
  self: Omit<Member, 'incarnation'>
  /** The id of the cluster; null for a node that is to learn it from those who are in the group. */
  cluster: string | null
  /** How long a member that is gone keeps its places on the ring. */
  rebalanceDelayMs: number
  join: JoinGroup
  network: Pick<PeerNetwork, 'connect' | 'listen'>
  /** Another state is about to take the place of the one that there is: this node was away for long. */
  replacing(): void
  /** An entry has taken effect, in its turn. */
  applied(entry: Entry): void
  /** A view has taken effect, in the turn after its entry. */
  viewChanged(view: View): void
  /** Runs what a client of another node asks of this one. */
  handle(request: SheepRequest, client: SheepClient, reply: (response: Reply) => void): void
  whenKnown(index: number): Promise<void> | null
  isRepeatable(request: SheepRequest): boolean
  /** Resolves when nothing is under way any more of what the client has changed by repeatable requests. */
  clientClosed(client: SheepClient): Promise<void>
  /** What other nodes ask of this one as a node. */
  answer(name: string, params: unknown): Promise<unknown>
  failed(error: StoreError): void
  /** The group has come to its end for this node: it is to be closed, and another one opened. Told once. */
  lost(reason: Error): void
}

/** From one look at how much of the ordered log is not needed any more to the next. */
const CUT_MS = 60_000

/** This node's part in the cluster: the ordered log, the views, the lease, the links to other nodes, and the copies that it holds. */
export class ClusterMember {
  readonly #options: ClusterMemberOptions
  readonly #membership: Membership
  readonly #entries: OrderedEntries
  readonly #door: OperationDoor
  #links: PeerLinks
  /** Of the last view. */
  #members: readonly Life[] = []
  /** Those that links lead to: members, and those who are about to be. */
  #peers: readonly PeerAddress[] = []
  #log: OrderedLog | null = null
  #isClosed = false

  private constructor(options: ClusterMemberOptions) {
    this.#options = options
    const { clock, random, log, self, cluster, rebalanceDelayMs, state, store, replacing, applied, failed } = options
    this.#membership = new Membership({
      self,
      cluster,
      views: () => state.views,
      heartbeat: (to, heartbeat) => this.#linksTo(to).request(to, HEARTBEAT, heartbeat),
      proveStore: () => proveStore(store),
      rebalanceDelayMs,
      clock,
      random,
      log,
      onRenewed: () => this.#renewLinks(),
      onView: (view) => this.#viewChanged(view),
      onLeaseLost: () => log.warn('this node has no majority of the cluster: its clients wait'),
      onStranger: (member, reason) => log.warn({ member, reason }, 'a stranger is in the group of this cluster'),
    })
    this.#entries = new OrderedEntries({
      state,
      store,
      failed,
      replacing,
      applied: (_index, entry) => {
        applied(entry)
        if (entry.type === 'view' || entry.type === 'state') this.#membership.tookEffect()
      },
    })
    this.#door = new OperationDoor(options)
    this.#links = this.#makeLinks()
  }

  /** Joins the group and begins to take part. Whether it is in a view yet is another matter. */
  static async open(options: ClusterMemberOptions): Promise<ClusterMember> {
    const member = new ClusterMember(options)
    await member.#open()
    return member
  }

  async #open(): Promise<void> {
    const { disk, clock, log, self, join, failed, lost } = this.#options
    const file = await OrderFile.open(disk, ORDER_FILE)
    let isLost = false
    this.#log = await OrderedLog.open(
      {
        node: self.node,
        life: this.#membership.life.incarnation,
        file,
        state: this.#entries,
        clock,
        log,
        fetch: (from, ballot, afterIndex) => this.#fetch(from, ballot, afterIndex),
        holdMs: (unapplied) => this.#membership.holdMs(unapplied),
        mayFollow: isVoterStep,
        onFailed: (error) => (isLost ? lost(error) : failed(toStoreError(error))),
      },
      this.#membership.joining((listener) =>
        join({
          ...listenerOf(listener),
          lost: (reason) => {
            isLost = true
            listener.lost(reason)
          },
        }),
      ),
    )
    this.#membership.start(this.#log)
    this.#cutLater()
  }

  /** This start of the node; another one after it was put out. */
  get life(): Life {
    return this.#membership.life
  }

  get view(): View {
    return this.#membership.view
  }

  get cluster(): string | null {
    return this.#membership.cluster
  }

  mayAct(): boolean {
    return this.#membership.mayAct()
  }

  /** A connection of another node, which has proved the key of the cluster. */
  linked(connection: Connection): void {
    this.#links.accept(connection)
  }

  /** Rejects with what the entry is refused with; with NoQuorum when this node stops; with Unsure when nobody can tell. */
  propose(entry: Entry): Promise<void> {
    if (!this.#log) return Promise.reject(new StoreError('NoQuorum', 'the node is starting'))
    return this.#log.propose(encodeEntry(entry).toString())
  }

  /** As HoldersOptions.send. */
  askCopy(to: Member, request: CopyRequest, done: (outcome: CopyAnswer | Error) => void): void {
    if (to.node === this.#options.self.node) this.#options.holder.answer(request, done)
    else this.#links.ask(to, COPY, request, done)
  }

  /** From the copies of this node, as CopyHolder.readNow. */
  readNow(request: LocalRead, done: (isRead: boolean) => void): boolean {
    return this.#options.holder.readNow(request, done)
  }

  /** As `askPeer`, of another node. */
  ask(to: Life, name: string, params: unknown): Promise<unknown> {
    return askPeer(this.#links, to, name, params)
  }

  /** The sheep of another node, for the client of this number. */
  sheepOf(to: Life, client: number): RemoteSheep {
    return new RemoteSheep(this.#links, to, client, () => this.#options.state.index)
  }

  /** Of a client that came over a link: the node that it is connected to. */
  gatewayOf(client: object | null): Life | null {
    return this.#door.lifeOf(client)
  }

  suspect(life: Life): void {
    this.#membership.suspect(life)
  }

  /** What operators ask for, by a view; its part in the cluster. */
  get orders(): Pick<Membership, 'drain' | 'remove' | 'alterCopies' | 'keepsPlacesForMs'> {
    return this.#membership
  }

  /** Resolves when the others know that this node is not there any more, or cannot be told, and all that was applied is on the disk. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    await this.#membership.leave()
    await this.#entries.sync()
    this.#membership.stop()
    await this.#log?.close()
    this.#links.close()
  }

  #makeLinks(): PeerLinks {
    const { network, clock, log, holder } = this.#options
    return new PeerLinks({
      network,
      clock,
      log,
      cluster: this.#membership.cluster ?? '',
      self: this.#membership.life,
      lostEpoch: this.#membership.view.epoch,
      handlers: [
        promised(HEARTBEAT, (heartbeat) => this.#membership.answer(heartbeat)),
        fetchHandler((ballot, afterIndex) => this.#itemsAfter(ballot, afterIndex)),
        copyHandler(holder),
        this.#door.handler,
        questionHandler((name, params) => this.#options.answer(name, params)),
      ],
    })
  }

  #viewChanged(view: View): void {
    const { holder, viewChanged } = this.#options
    holder.viewChanged(view.epoch)
    this.#links.endWith(this.#members.filter((life) => !view.members.some((member) => isSameLife(member, life))))
    this.#members = view.members
    const isMember = (peer: PeerAddress) => view.members.some(({ node }) => node === peer.node)
    this.#peers = [...view.members, ...this.#peers.filter((peer) => !isMember(peer))]
    this.#setPeers()
    viewChanged(view)
  }

  /** The links, when there is one to that node: it may have none as long as it is not in a view. */
  #linksTo(to: PeerAddress): PeerLinks {
    if (!this.#peers.some((peer) => isSameLife(peer, to))) {
      this.#peers = [...this.#peers.filter(({ node }) => node !== to.node), to]
      this.#setPeers()
    }
    return this.#links
  }

  #setPeers(): void {
    this.#links.setPeers(this.#peers.filter(({ node }) => node !== this.#options.self.node))
  }

  /** Whoever was put out comes back as somebody else, over links of its own. */
  #renewLinks(): void {
    this.#links.close()
    this.#links = this.#makeLinks()
    this.#setPeers()
  }

  #fetch(from: MemberId, ballot: Ballot, afterIndex: number): Promise<Fetched> {
    const to = this.#membership.nodeOf(from)
    if (!to) return Promise.reject(new Error(`nobody knows yet which node ${from} is`))
    return fetchFrom(this.#linksTo(to), to, ballot, afterIndex)
  }

  async #itemsAfter(ballot: Ballot, afterIndex: number): Promise<Fetched> {
    const log = this.#log
    const items = log?.itemsAfter(ballot, afterIndex) ?? null
    if (!log || items === null) throw new Error('this node has not the log of that ballot')
    return items === 'cut' ? { state: this.#entries.encodeState(log.appliedIndex) } : items
  }

  #cutLater(): void {
    this.#options.clock.timer(CUT_MS, () => {
      const log = this.#log
      if (this.#isClosed || !log) return
      const index = log.appliedIndex
      this.#entries
        .sync()
        .then(() => log.cut(index))
        .catch((error) => this.#options.failed(toStoreError(error)))
        .finally(() => this.#cutLater())
    })
  }
}

const listenerOf = (listener: GroupListener): Omit<GroupListener, 'lost'> => ({
  configured: (configuration) => listener.configured(configuration),
  delivered: (sender, message) => listener.delivered(sender, message),
  quorate: (isQuorate) => listener.quorate(isQuorate),
})

const isSameLife = (a: Life, b: Life) => a.node === b.node && a.incarnation === b.incarnation

/** The loop has taken a turn, and the journal a sync. */
function proveStore(store: ObjectStore): Promise<void> {
  return new Promise((resolve, reject) => store.sync((error) => (error ? reject(error) : resolve())))
}
