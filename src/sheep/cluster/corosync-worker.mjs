/**
 * Thread that talks to corosync, and to nobody else does: libcpg and libvotequorum block, and what they call must not wait for a
 * store that is busy. Plain JavaScript, so that the same file runs from the sources and from the build.
 *
 * It waits in poll for corosync and for `wakeFd`, which says that there is a message for it or room again:
 *
 *   { send: Uint8Array }: to all of the group, in order; waits here while corosync is busy
 *   { leave: true }
 *
 * Messages out, first of all { joined: { nodeId, pid } } or { failed: text, code }:
 *
 *   { events: [ { change: { present, left, joined } }, { sender, payload }, { isQuorate } ], bytes: what they count for }
 *   { lost: text }, after which the thread ends
 *
 * `counters` are shared: what was sent and is not with corosync yet, and what was told and is not taken yet.
 */
import assert from 'node:assert'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import koffi from 'koffi'

/** @type {{ group: string, wakeFd: number, counters: Int32Array, payloadBytesMax: number, backlogBytesMax: number }} */
const { group, wakeFd, counters, payloadBytesMax, backlogBytesMax } = workerData
assert(parentPort !== null)
const port = parentPort
const [UNSENT_BYTES, UNTAKEN_BYTES, IS_AWAKE] = [0, 1, 2]

const OK = 1
const TRY_AGAIN = 6
const AGREED = 2
const ONE_NONBLOCKING = 4
const TRACK_CURRENT_AND_CHANGES = 1 | 2
const POLLIN = 1
/** corosync refuses everything while its nodes agree on a ring. */
const ATTEMPTS_MAX = 250
const ATTEMPT_MS = 40
const RETRY_MS = 2
/** An end of the process has to wait for this thread. */
const WAIT_MS = 250
const DISPATCHES_MAX = 64
const EVENT_BYTES = 64
const BATCH_BYTES = 256 * 1024

const libc = koffi.load('libc.so.6')
const PollFd = koffi.struct({ fd: 'int', events: 'short', revents: 'short' })
const poll = libc.func('poll', 'int', [koffi.inout(koffi.pointer(PollFd)), 'ulong', 'int'])
const memcpy = libc.func('void *memcpy(void *to, const void *from, size_t size)')
const eventfdRead = libc.func('int eventfd_read(int fd, _Out_ uint64_t *value)')

const Name = koffi.struct('cpg_name', { length: 'uint32_t', value: koffi.array('char', 128, 'String') })
const Iovec = koffi.struct({ base: 'void *', length: 'size_t' })
const Delivered = koffi.proto(
  'void cpg_delivered(uint64_t handle, const cpg_name *group, uint32_t node, uint32_t pid, const void *message, size_t size)',
)
const Changed = koffi.proto(
  'void cpg_changed(uint64_t handle, const cpg_name *group, const void *present, size_t n, const void *left, size_t l, const void *joined, size_t j)',
)
const CpgCallbacks = koffi.struct({ delivered: koffi.pointer(Delivered), changed: koffi.pointer(Changed) })
const Quorate = koffi.proto(
  'void votequorum_notified(uint64_t handle, uint64_t context, uint32_t quorate, uint32_t n, const void *nodes)',
)
const QuorumCallbacks = koffi.struct({ quorate: koffi.pointer(Quorate), expected: 'void *', nodes: 'void *' })

/** @param {string} name @param {string} soname @param {string} debianPackage */
function load(name, soname, debianPackage) {
  try {
    return koffi.load(soname)
  } catch (cause) {
    throw new Refusal(`${name} is missing: install the package ${debianPackage}`, 0, cause)
  }
}

class Refusal extends Error {
  /** @param {string} message @param {number} code @param {unknown} [cause] */
  constructor(message, code, cause) {
    super(message, { cause })
    this.code = code
  }
}

/** What the errors of `cs_error_t` mean for whoever has to do something about them. */
const ADVICE = new Map([
  [2, 'corosync does not run on this host; start it, and see its log if it does not stay'],
  [TRY_AGAIN, 'corosync is busy and did not come to an end with it; see its log'],
  [11, 'this user may not talk to corosync: it needs a uidgid section in corosync.conf'],
  [12, 'this corosync does not offer it'],
  [
    14,
    'a process with the same number is in the group already; two containers on one host need a common pid namespace',
  ],
])

/** @param {string} what @param {() => number} call */
function insist(what, call) {
  const idle = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT))
  for (let attempt = 1; ; attempt++) {
    const code = call()
    if (code === OK) return
    if (code !== TRY_AGAIN || attempt === ATTEMPTS_MAX) {
      throw new Refusal(`${what} failed with error ${code}: ${ADVICE.get(code) ?? 'see the log of corosync'}`, code)
    }
    Atomics.wait(idle, 0, 0, ATTEMPT_MS)
  }
}

/** @type {unknown[]} */
let events = []
let eventBytes = 0

/** @param {unknown} event @param {number} bytes */
function tell(event, bytes) {
  events.push(event)
  eventBytes += EVENT_BYTES + bytes
  if (eventBytes >= BATCH_BYTES) flush()
}

function flush() {
  if (events.length === 0) return
  Atomics.add(counters, UNTAKEN_BYTES, eventBytes)
  port.postMessage({ events, bytes: eventBytes })
  events = []
  eventBytes = 0
}

/** @param {unknown} from @param {bigint | number} count */
function addresses(from, count) {
  const FIELDS = 3 // node, pid, reason
  const fields = new Uint32Array(FIELDS * Number(count))
  if (fields.length > 0) memcpy(fields, from, fields.byteLength)
  return Array.from({ length: Number(count) }, (_, i) => `${fields[FIELDS * i]}:${fields[FIELDS * i + 1]}`)
}

/** @typedef {[bigint, unknown, number, number, unknown, bigint]} CpgDelivered */
/** @typedef {[bigint, unknown, unknown, bigint, unknown, bigint, unknown, bigint]} CpgChanged */

function openCpg() {
  const library = load('libcpg', 'libcpg.so.4', 'libcpg4')
  const initialize = library.func('cpg_initialize', 'int', ['_Out_ uint64_t *', koffi.pointer(CpgCallbacks)])
  const maxSize = library.func('int cpg_max_atomic_msgsize_get(uint64_t handle, _Out_ uint32_t *size)')
  const localGet = library.func('int cpg_local_get(uint64_t handle, _Out_ uint32_t *node)')
  const fdGet = library.func('int cpg_fd_get(uint64_t handle, _Out_ int *fd)')
  const join = library.func('cpg_join', 'int', ['uint64_t', koffi.pointer(Name)])
  const leave = library.func('cpg_leave', 'int', ['uint64_t', koffi.pointer(Name)])
  const multicast = library.func('cpg_mcast_joined', 'int', ['uint64_t', 'int', koffi.pointer(Iovec), 'uint32_t'])
  const dispatch = library.func('int cpg_dispatch(uint64_t handle, int how)')
  const finalize = library.func('int cpg_finalize(uint64_t handle)')
  const name = { length: Buffer.byteLength(group), value: group }

  let isIn = false
  /** @type {[bigint]} */
  const handle = [0n]
  /** @type {[number]} */
  const node = [0]
  /** @type {[number]} */
  const fd = [0]
  /** @type {[number]} */
  const size = [0]
  const callbacks = {
    delivered: koffi.register((/** @type {CpgDelivered} */ ...[, , sender, pid, message, length]) => {
      const payload = new Uint8Array(Number(length))
      memcpy(payload, message, payload.length)
      tell({ sender: `${sender}:${pid}`, payload }, payload.length)
    }, koffi.pointer(Delivered)),
    changed: koffi.register((/** @type {CpgChanged} */ ...[, , present, n, left, l, joined, j]) => {
      const change = { present: addresses(present, n), left: addresses(left, l), joined: addresses(joined, j) }
      isIn = change.present.includes(`${node[0]}:${process.pid}`)
      tell({ change }, 0)
    }, koffi.pointer(Changed)),
  }
  insist('cpg_initialize', () => initialize(handle, callbacks))
  insist('cpg_local_get', () => localGet(handle[0], node))
  insist('cpg_fd_get', () => fdGet(handle[0], fd))
  insist('cpg_max_atomic_msgsize_get', () => maxSize(handle[0], size))
  if (size[0] < payloadBytesMax) {
    throw new Refusal(`corosync takes messages of ${size[0]} bytes only, and ${payloadBytesMax} are needed`, 0)
  }
  insist('cpg_join', () => join(handle[0], name))
  return {
    fd: fd[0],
    nodeId: node[0],
    isIn: () => isIn,
    dispatch: () => dispatch(handle[0], ONE_NONBLOCKING),
    /** @param {Uint8Array} payload */
    multicast: (payload) => multicast(handle[0], AGREED, { base: payload, length: payload.length }, 1),
    leave: () => leave(handle[0], name),
    finalize: () => finalize(handle[0]),
  }
}

/** Null where corosync counts no votes. */
function openQuorum() {
  const library = load('libvotequorum', 'libvotequorum.so.8', 'libvotequorum8')
  const initialize = library.func('votequorum_initialize', 'int', ['_Out_ uint64_t *', koffi.pointer(QuorumCallbacks)])
  const fdGet = library.func('int votequorum_fd_get(uint64_t handle, _Out_ int *fd)')
  const trackStart = library.func('int votequorum_trackstart(uint64_t handle, uint64_t context, unsigned int flags)')
  const dispatch = library.func('int votequorum_dispatch(uint64_t handle, int how)')
  const finalize = library.func('int votequorum_finalize(uint64_t handle)')
  /** @type {[bigint]} */
  const handle = [0n]
  /** @type {[number]} */
  const fd = [0]
  const callbacks = {
    quorate: koffi.register(
      (/** @type {[bigint, bigint, number]} */ ...[, , quorate]) => tell({ isQuorate: quorate !== 0 }, 0),
      koffi.pointer(Quorate),
    ),
    expected: null,
    nodes: null,
  }
  try {
    insist('votequorum_initialize', () => initialize(handle, callbacks))
  } catch (error) {
    const NOT_EXIST = 12
    if (error instanceof Refusal && error.code === NOT_EXIST) return null
    throw error
  }
  insist('votequorum_fd_get', () => fdGet(handle[0], fd))
  insist('votequorum_trackstart', () => trackStart(handle[0], 0n, TRACK_CURRENT_AND_CHANGES))
  return { fd: fd[0], dispatch: () => dispatch(handle[0], ONE_NONBLOCKING), finalize: () => finalize(handle[0]) }
}

/** Tells some of what corosync has for us. @param {{ dispatch: () => number }} library */
function dispatchSome(library) {
  for (let count = 0; count < DISPATCHES_MAX; count++) {
    const code = library.dispatch()
    if (code === TRY_AGAIN) return
    if (code !== OK) throw new Refusal(`corosync on this host has ended (error ${code})`, code)
  }
}

/** @type {Uint8Array[]} */
let unsent = []
let mustLeave = false

function takeOrders() {
  Atomics.store(counters, IS_AWAKE, 0)
  eventfdRead(wakeFd, [0n])
  for (let order = receiveMessageOnPort(port); order; order = receiveMessageOnPort(port)) {
    if (order.message.leave) mustLeave = true
    else unsent.push(order.message.send)
  }
}

/** @param {ReturnType<typeof openCpg>} cpg */
function sendSome(cpg) {
  let count = 0
  for (const payload of unsent) {
    const code = cpg.multicast(payload)
    if (code === TRY_AGAIN) break
    if (code !== OK) throw new Refusal(`corosync on this host took no message (error ${code})`, code)
    Atomics.sub(counters, UNSENT_BYTES, payload.length)
    count++
  }
  unsent = count === unsent.length ? [] : unsent.slice(count)
}

/** @param {ReturnType<typeof openCpg>} cpg @param {ReturnType<typeof openQuorum>} quorum */
function serve(cpg, quorum) {
  const wanted = (/** @type {number} */ fd) => ({ fd, events: POLLIN, revents: 0 })
  let hasLeft = false
  for (;;) {
    takeOrders()
    if (mustLeave && !hasLeft) hasLeft = cpg.leave() === OK
    if (!mustLeave) sendSome(cpg)
    const isBehind = Atomics.load(counters, UNTAKEN_BYTES) > backlogBytesMax
    if (!isBehind) dispatchSome(cpg)
    if (quorum !== null) dispatchSome(quorum)
    flush()
    if (hasLeft && !cpg.isIn()) return
    const waits = [
      wanted(wakeFd),
      ...(isBehind ? [] : [wanted(cpg.fd)]),
      ...(quorum === null ? [] : [wanted(quorum.fd)]),
    ]
    poll(waits, waits.length, unsent.length > 0 || (mustLeave && !hasLeft) ? RETRY_MS : WAIT_MS)
  }
}

let isJoined = false
try {
  const cpg = openCpg()
  const quorum = openQuorum()
  port.postMessage({ joined: { nodeId: cpg.nodeId, pid: process.pid } })
  isJoined = true
  serve(cpg, quorum)
  quorum?.finalize()
  cpg.finalize()
} catch (error) {
  flush()
  const text = error instanceof Error ? error.message : String(error)
  port.postMessage(isJoined ? { lost: text } : { failed: text })
}
