import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { describe, expect, onTestFinished, test } from 'vitest'
import { createNbdServer, type NbdServer } from '../../../src/exports/nbd/server.ts'
import { REFRESH_MS } from '../../../src/exports/qos/throttles.ts'
import { storeDirectory } from '../../../src/exports/store-directory.ts'
import { type Clock, systemClock } from '../../../src/runtime/clock.ts'
import { createLog } from '../../../src/runtime/log.ts'
import { systemNetwork } from '../../../src/runtime/network.ts'
import { VdiClient } from '../../../src/vdi/client.ts'
import type { ExportLimits } from '../../../src/vdi/export-limits.ts'
import { hashExportName } from '../../../src/vdi/export-name.ts'
import { LiveSheep } from '../../tools/live-sheep.ts'
import { ManualClock } from '../../tools/manual-clock.ts'
import { NbdClient } from '../../tools/nbd-client.ts'
import { requireCommand } from '../../tools/require-command.ts'
import { quiet, until } from './harness.ts'

const MIB = 1024 * 1024
const SIZE_BYTES = 64 * MIB
const withNbdsh = requireCommand('nbdsh', 'python3-libnbd')

interface Gateway {
  server: NbdServer
  vdis: VdiClient
  vid: number
  socketPath: string
}

/** A gateway over a real store, with one volume that is exported as `volume`. */
async function startGateway(
  how: 'call' | 'dial',
  { clock = systemClock, limits }: { clock?: Clock; limits?: ExportLimits } = {},
): Promise<Gateway> {
  const live = await LiveSheep.start()
  const vdis = new VdiClient(live[how]())
  const vid = await vdis.create('volume', SIZE_BYTES)
  const right = { attachmentId: 'attachment', nameHash: hashExportName('volume'), vid, readOnly: false }
  await vdis.putExport(limits ? { ...right, limits } : right)
  const server = createNbdServer({
    network: systemNetwork,
    clock,
    log: createLog('silent'),
    exports: storeDirectory(vdis),
  })
  const directory = mkdtempSync(join(tmpdir(), 'nbd-store-'))
  const socketPath = await server.listen(join(directory, 'nbd.sock'))
  onTestFinished(async () => {
    await server.close()
    vdis.close()
    await live.stop()
    rmSync(directory, { recursive: true })
  })
  return { server, vdis, vid, socketPath }
}

/** Runs a script with libnbd; `answers` says what is done at each line that it prints, before it may go on. */
async function nbdsh(script: string, answers: Readonly<Record<string, () => Promise<unknown>>>): Promise<void> {
  // nbdsh runs the first python3 of PATH, and the module that it needs belongs to Debian's.
  const env = { ...process.env, PATH: `/usr/bin:${process.env.PATH}` }
  const child = spawn('nbdsh', ['-c', script], { env, stdio: ['pipe', 'pipe', 'pipe'] })
  const errors = text(child.stderr)
  const ended = once(child, 'close')
  for await (const line of createInterface({ input: child.stdout })) {
    await answers[line]!()
    child.stdin.write('\n')
  }
  const [code] = await ended
  expect(await errors).toBe('')
  expect(code).toBe(0)
}

/** All that libnbd can ask for, and all that it can ask for wrongly. */
const SCRIPT = (socketPath: string) => `
import errno, nbd, os, sys
MIB = 1024 * 1024
FUA, NO_HOLE, FAST, DF, REQ_ONE = nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO, nbd.CMD_FLAG_DF, nbd.CMD_FLAG_REQ_ONE
def wait(what):
    print(what, flush=True)
    sys.stdin.readline()
def fails(expected, call, *args):
    try: call(*args)
    except nbd.Error as error: assert error.errnum == expected, (call, args, error.errno, expected)
    else: assert False, (call, args, expected)
def open():
    handle = nbd.NBD()
    handle.set_strict_mode(0)
    handle.set_full_info(True)
    handle.add_meta_context("base:allocation")
    handle.set_export_name("volume")
    handle.connect_unix("${socketPath}")
    return handle
def extents(offset, length, flags=0):
    told = []
    h.block_status(length, offset, lambda context, at, entries, error: told.extend(entries), flags)
    return list(zip(told[::2], told[1::2]))

h = open()
size = h.get_size()
assert size == 64 * MIB
assert (h.get_block_size(nbd.SIZE_MINIMUM), h.get_block_size(nbd.SIZE_PREFERRED), h.get_block_size(nbd.SIZE_MAXIMUM)) == (1, 4096, 32 * MIB)
for can in (h.can_cache, h.can_df, h.can_fast_zero, h.can_flush, h.can_fua, h.can_multi_conn, h.can_trim, h.can_zero): assert can(), can
assert not h.is_read_only() and h.get_structured_replies_negotiated()
assert h.get_export_description() == "attachment attachment"

# Any alignment, across blocks and objects.
model = bytearray(size)
for offset, length in ((0, 1), (1, 511), (4095, 2), (4 * MIB - 1, 2), (4 * MIB - 3, 8 * MIB + 7), (size - 1, 1), (12345, 32 * MIB)):
    data = os.urandom(length)
    h.pwrite(data, offset, FUA)
    model[offset:offset + length] = data
    assert h.pread(length, offset, DF) == data
    assert h.pread(1, offset) == data[:1]
for offset, length, flags in ((100, 5000, 0), (MIB + 4096, 8192, FAST | FUA), (2 * MIB + 1, 70000, NO_HOLE)):
    h.zero(length, offset, flags)
    model[offset:offset + length] = bytes(length)
h.trim(4 * MIB, 8 * MIB, FUA)
model[8 * MIB:12 * MIB] = bytes(4 * MIB)
h.cache(size, 0)
h.flush()
assert h.pread(32 * MIB, 0) + h.pread(32 * MIB, 32 * MIB) == bytes(model)

# What is there: holes read as zeros, and zeros that had to stay take space.
assert extents(8 * MIB, 4 * MIB) == [(4 * MIB, 3)]
assert extents(MIB + 4096, 8192) == [(8192, 3)]
assert [flags for _, flags in extents(2 * MIB, 131072)] == [0]
assert extents(8 * MIB - 4096, MIB, REQ_ONE) == [(4096, 0)]

# What is refused, and that nothing of it happens; the connection goes on.
fails(errno.ENOTSUP, h.zero, 4096, 0, FAST | NO_HOLE)
fails(errno.ENOTSUP, h.zero, 4096, 1, FAST)
fails(errno.EINVAL, h.pread, 2, size - 1)
fails(errno.ENOSPC, h.pwrite, b"ab", size - 1)
fails(errno.ENOSPC, h.pwrite, bytes(9 * MIB), size - 9 * MIB + 1)
fails(errno.ENOSPC, h.zero, 8192, size - 4096)
fails(errno.ENOSPC, h.zero, 8192, size - 4096, NO_HOLE)
fails(errno.EINVAL, h.trim, 8192, size - 4096)
fails(errno.EINVAL, h.cache, 8192, size - 4096)
fails(errno.EINVAL, extents, size - 4096, 8192)
fails(errno.EINVAL, h.pread, 32 * MIB + 1, 0)
fails(errno.EINVAL, h.pwrite, bytes(32 * MIB + 1), 0)
for call in (lambda flags: h.pread(512, 0, flags), lambda flags: h.pwrite(bytes(512), 0, flags), lambda flags: h.zero(512, 0, flags), lambda flags: h.trim(512, 0, flags), lambda flags: h.cache(512, 0, flags)):
    fails(errno.EINVAL, call, REQ_ONE)
    fails(errno.EINVAL, call, 0x8000)
for call in (lambda: h.pread(0, 0), lambda: h.pwrite(b"", 0), lambda: h.zero(0, 0), lambda: h.trim(0, 0), lambda: h.cache(0, 0)):
    fails(errno.EINVAL, call)
assert h.pread(32 * MIB, 0) + h.pread(32 * MIB, 32 * MIB) == bytes(model)

# The volume grows: this connection may use it at once, and a new one is told.
wait("grow")
assert open().get_size() == 96 * MIB
h.pwrite(b"grown", size - 2, FUA)
h.zero(4096, 96 * MIB - 4096, FAST)
assert open().pread(7, size - 2) == b"grown\\0\\0"
fails(errno.ENOSPC, h.pwrite, b"ab", 96 * MIB - 1)

# The right goes: nobody is answered any more.
other = open()
wait("detach")
for handle in (h, other):
    try: handle.pread(1, 0)
    except nbd.Error as error: assert error.errnum in (errno.ENOTCONN, errno.ESHUTDOWN, errno.EINVAL, 0), error
    else: assert False
    assert handle.aio_is_dead() or handle.aio_is_closed()
`

describe.each(['call', 'dial'] as const)('over a store that is reached by a %s', (how) => {
  withNbdsh('libnbd uses every command and flag, in and out of place, while the volume grows and goes', async () => {
    const { server, vdis, vid, socketPath } = await startGateway(how)
    await nbdsh(SCRIPT(socketPath), {
      grow: () => vdis.resize(vid, 96 * MIB),
      detach: async () => {
        await vdis.removeExport('attachment')
        await server.cutOff('attachment')
      },
    })
    await expect(NbdClient.connect(socketPath, 'volume')).rejects.toThrow('no such export')
  })

  test('what was sent under a right that is gone never arrives, however much of it is under way', async () => {
    const { server, vdis, vid, socketPath } = await startGateway(how)
    const clients = await Promise.all([1, 2, 3].map(() => NbdClient.connect(socketPath, 'volume')))
    await Promise.all(clients.map((client, index) => client.write(index * 8 * MIB, Buffer.alloc(4096, 1))))
    const outcomes = clients.flatMap((client, index) =>
      Array.from({ length: 200 }, (_, n) => client.write(index * 8 * MIB + n * 4096, Buffer.alloc(64 * 1024, 2))),
    )
    const settled = Promise.allSettled(outcomes)
    await outcomes[0]
    await vdis.removeExport('attachment')
    await server.cutOff('attachment')
    const device = await vdis.open(vid, { readOnly: false })
    const read = async () => {
      const bytes = Buffer.alloc(24 * MIB)
      await new Promise<void>((resolve, reject) =>
        device.read(0, bytes, (error) => (error ? reject(error) : resolve())),
      )
      return bytes
    }
    const before = await read()
    const results = await settled
    expect(results.some(({ status }) => status === 'rejected')).toBe(true)
    expect((await read()).equals(before)).toBe(true)
    for (const [index, { status }] of results.entries()) {
      const offset = Math.floor(index / 200) * 8 * MIB + (index % 200) * 4096
      if (status === 'fulfilled') expect(before[offset]).toBe(2)
    }
    await device.close()
  })
})

describe('limits', () => {
  test.each(['call', 'dial'] as const)('are in the record of the right, and go with it (%s)', async (how) => {
    const clock = new ManualClock()
    const { server, socketPath, vdis, vid } = await startGateway(how, {
      clock,
      limits: { readIops: { perSecond: 10 } },
    })
    const client = await NbdClient.connect(socketPath, 'volume')
    const started = () => server.stats.requests
    await client.write(0, Buffer.alloc(4096, 7))
    let answered = 0
    const read = (count: number) =>
      Array.from({ length: count }, () => client.read(0, 4096).then((data) => (answered += data[0]! / 7)))

    const pass = async (tenths: number) => {
      for (let passed = 0; passed < tenths; passed++) {
        clock.advance(100)
        await quiet(() => answered)
      }
    }

    const first = read(20)
    await until(() => answered === 2)
    await quiet(started)
    expect(answered).toBe(2)
    await pass(10)
    await until(() => answered >= 12)
    await quiet(() => answered)
    expect(answered).toBe(12)

    await vdis.snapshot(vid, 'tag') // the volume goes on under another vid
    await vdis.limitExport('attachment', { readIops: { perSecond: 1000 } })
    expect((await vdis.exportsOf('volume'))[0]?.limits).toEqual({ readIops: { perSecond: 1000 } })
    const second = read(2000)
    await pass(REFRESH_MS / 100)
    const before = answered
    await pass(3)
    expect(answered - before).toBeGreaterThan(200)
    expect(answered - before).toBeLessThan(310)
    await vdis.limitExport('attachment', null)
    expect((await vdis.exportsOf('volume'))[0]).not.toHaveProperty('limits')
    clock.advance(REFRESH_MS)
    await Promise.all([...first, ...second])
    await expect(vdis.limitExport('nobody', null)).rejects.toMatchObject({ code: 'NoExport' })
    for (const wrong of [5, 'text', [1], { long: 'x'.repeat(3000) }]) {
      await expect(vdis.limitExport('attachment', wrong as object)).rejects.toMatchObject({ code: 'InvalidParameters' })
    }
    await client.disconnect()
  })
})
