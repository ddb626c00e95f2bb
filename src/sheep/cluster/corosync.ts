import { Worker } from 'node:worker_threads'
import koffi from 'koffi'
import type { Clock } from '../../runtime/clock.ts'
import type { Random } from '../../runtime/random.ts'
import type { Group, GroupListener, JoinGroup } from './group.ts'
import { type Address, PAYLOAD_BYTES_MAX, ProcessGroup } from './process-group.ts'

/** What waits for corosync at most; whatever is sent beyond it is lost. */
const UNSENT_BYTES_MAX = 16 * 1024 * 1024
/** What corosync has told and the store has not taken. Beyond it corosync keeps it, and slows down those who send. */
const BACKLOG_BYTES_MAX = 16 * 1024 * 1024
const LEAVE_MS = 5000
const START_BYTES = 8
const CPG_NAME_BYTES_MAX = 128
const [UNSENT_BYTES, UNTAKEN_BYTES, IS_AWAKE] = [0, 1, 2]

const libc = koffi.load('libc.so.6')
const eventfd = libc.func('int eventfd(unsigned int value, int flags)')
const eventfdWrite = libc.func('int eventfd_write(int fd, uint64_t value)')
const close = libc.func('int close(int fd)')
const EFD_NONBLOCK = 0o4000
const EFD_CLOEXEC = 0o2000000

export interface CorosyncOptions {
  /** Several clusters on one corosync differ in it. At most 120 bytes. */
  readonly cluster: string
  readonly clock: Clock
  readonly random: Random
}

type CorosyncEvent =
  | { change: { present: Address[]; left: Address[]; joined: Address[] } }
  | { sender: Address; payload: Uint8Array }
  | { isQuorate: boolean }

/** What the thread says; see corosync-worker.mjs. */
type FromThread =
  | { joined: { nodeId: number; pid: number } }
  | { failed: string }
  | { lost: string }
  | { events: CorosyncEvent[]; bytes: number }

/**
 * A member by corosync 3: its closed process groups (libcpg) order the messages and tell who is there, `process-group.ts` makes
 * configurations of that, and votequorum says who has the majority of corosync's nodes. Both are called on a thread of their own.
 * A message of the size that may be sent is one to corosync, which cuts it up by itself.
 */
export function joinCorosync(options: CorosyncOptions): JoinGroup {
  const group = `collie.${options.cluster}`
  if (Buffer.byteLength(group) > CPG_NAME_BYTES_MAX) throw new TypeError(`${options.cluster} is too long for a cluster`)
  return (listener) =>
    new Promise((resolve, reject) => {
      const thread = new CorosyncThread(group)
      const member = new CorosyncMember(thread, options, listener)
      thread.worker.on('message', (message: FromThread) => {
        if ('joined' in message) resolve(member.joined(message.joined))
        else if ('failed' in message) reject(new Error(message.failed))
        else if ('lost' in message) member.lost(new Error(message.lost))
        else member.told(message.events, message.bytes)
      })
      const ended = (error: Error) => {
        reject(error)
        member.lost(error)
      }
      thread.worker.once('error', ended)
      thread.worker.once('exit', (code) => ended(new Error(`the thread for corosync ended with code ${code}`)))
    })
}

class CorosyncThread {
  readonly worker: Worker
  readonly ended: Promise<void>
  /** Negative once the thread has ended: another file may have the number then. */
  #wakeFd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) as number
  readonly #counters = new Int32Array(new SharedArrayBuffer(3 * Int32Array.BYTES_PER_ELEMENT))

  constructor(group: string) {
    this.worker = new Worker(new URL('./corosync-worker.mjs', import.meta.url), {
      workerData: {
        group,
        wakeFd: this.#wakeFd,
        counters: this.#counters,
        payloadBytesMax: PAYLOAD_BYTES_MAX,
        backlogBytesMax: BACKLOG_BYTES_MAX,
      },
      trackUnmanagedFds: false,
      execArgv: [], // loaders of the sources are not for it
    })
    this.ended = new Promise((resolve) => {
      this.worker.once('exit', () => {
        close(this.#wakeFd)
        this.#wakeFd = -1
        resolve()
      })
    })
  }

  /** Drops it when too much is waiting. */
  send(payload: Buffer): void {
    if (Atomics.load(this.#counters, UNSENT_BYTES) + payload.length > UNSENT_BYTES_MAX) return
    Atomics.add(this.#counters, UNSENT_BYTES, payload.length)
    const bytes = new Uint8Array(payload) // what Buffer cuts from its pool would take the pool along
    this.#order({ send: bytes }, [bytes.buffer])
  }

  leave(): void {
    this.#order({ leave: true }, [])
  }

  taken(bytes: number): void {
    const before = Atomics.sub(this.#counters, UNTAKEN_BYTES, bytes)
    if (before > BACKLOG_BYTES_MAX && before - bytes <= BACKLOG_BYTES_MAX) this.#wake()
  }

  #order(order: object, transferred: ArrayBuffer[]): void {
    this.worker.postMessage(order, transferred)
    this.#wake()
  }

  #wake(): void {
    if (this.#wakeFd >= 0 && Atomics.exchange(this.#counters, IS_AWAKE, 1) === 0) eventfdWrite(this.#wakeFd, 1)
  }
}

class CorosyncMember {
  readonly #thread: CorosyncThread
  readonly #options: CorosyncOptions
  readonly #listener: GroupListener
  #group: ProcessGroup | null = null
  #isOver = false

  constructor(thread: CorosyncThread, options: CorosyncOptions, listener: GroupListener) {
    this.#thread = thread
    this.#options = options
    this.#listener = listener
  }

  joined({ nodeId, pid }: { nodeId: number; pid: number }): Group {
    const group = new ProcessGroup({
      address: `${nodeId}:${pid}`,
      start: this.#options.random.bytes(START_BYTES).toString('hex'),
      clock: this.#options.clock,
      listener: this.#listener,
      multicast: (payload) => this.#thread.send(payload),
    })
    this.#group = group
    return {
      self: group.self,
      send: (message) => {
        if (!this.#isOver) group.send(message)
      },
      leave: () => this.#leave(),
    }
  }

  told(events: readonly CorosyncEvent[], bytes: number): void {
    for (const event of events) {
      if (this.#isOver) break
      if ('change' in event) this.#group!.changed(event.change.present, event.change.left, event.change.joined)
      else if ('payload' in event) this.#group!.received(event.sender, Buffer.from(event.payload.buffer))
      else this.#listener.quorate(event.isQuorate)
    }
    this.#thread.taken(bytes)
  }

  lost(reason: Error): void {
    if (this.#isOver || this.#group === null) return
    this.#end()
    this.#listener.lost(reason)
  }

  async #leave(): Promise<void> {
    if (!this.#isOver) {
      this.#end()
      this.#thread.leave()
    }
    // A corosync that hangs tells nobody anything any more.
    const hangs = new Promise<void>((resolve) => {
      this.#options.clock.timer(LEAVE_MS, () => {
        void this.#thread.worker.terminate()
        resolve()
      })
    })
    await Promise.race([this.#thread.ended, hangs])
  }

  #end(): void {
    this.#isOver = true
    this.#group?.end()
  }
}
