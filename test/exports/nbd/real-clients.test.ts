import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, onTestFinished } from 'vitest'
import { seededSchedule } from '../../tools/memory-device.ts'
import { requireCommand } from '../../tools/require-command.ts'
import { EXPORT_NAME, type Harness, startServer } from './harness.ts'

const MIB = 1024 * 1024
const withNbdinfo = requireCommand('nbdinfo', 'libnbd-bin')
const withNbdcopy = requireCommand('nbdcopy', 'libnbd-bin')
const withNbdsh = requireCommand('nbdsh', 'python3-libnbd')
const withQemuIo = requireCommand('qemu-io', 'qemu-utils')
const withQemuImg = requireCommand('qemu-img', 'qemu-utils')
const withFio = requireCommand('fio', 'fio')

/** nbdsh runs the first python3 of PATH, and the module that it needs belongs to Debian's. */
const env = { ...process.env, PATH: `/usr/bin:${process.env.PATH}` }

async function run(command: string, ...args: string[]): Promise<string> {
  return (await promisify(execFile)(command, args, { timeout: 50_000, env })).stdout
}

describe.each<[string, (harness: Harness) => string]>([
  ['a unix socket', ({ unixPath }) => `nbd+unix:///${EXPORT_NAME}?socket=${unixPath}`],
  ['TCP', ({ tcpAddress }) => `nbd://${tcpAddress}/${EXPORT_NAME}`],
])('over %s', (_door, uriOf) => {
  withNbdinfo('nbdinfo sees what the export can do, and no other export', async () => {
    const harness = await startServer({ sizeBytes: 16 * MIB })
    const uri = uriOf(harness)
    const [info] = JSON.parse(await run('nbdinfo', '--json', '--no-content', uri)).exports
    expect(info).toMatchObject({
      'export-name': EXPORT_NAME,
      'export-size': 16 * MIB,
      contexts: ['base:allocation'],
      is_read_only: false,
      can_df: true,
      can_cache: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MIB,
    })
    const listed = JSON.parse(await run('nbdinfo', '--json', '--list', uri.replace(EXPORT_NAME, '')))
    expect(listed.exports).toEqual([])
    await expect(run('nbdinfo', uri.replace(EXPORT_NAME, 'another'))).rejects.toThrow('No such file or directory')
  })

  withNbdcopy('nbdcopy brings an image in and out again, over several connections', async () => {
    const harness = await startServer({ sizeBytes: 24 * MIB, schedule: seededSchedule(7) })
    const { source, copy } = imageOf(24 * MIB)
    await run('nbdcopy', '--flush', source, uriOf(harness))
    expect(harness.disk.unflushedWrites).toBe(0)
    await run('nbdcopy', uriOf(harness), copy)
    expect(digest(copy)).toBe(digest(source))
  })

  withNbdinfo('nbdinfo maps what was written', async () => {
    const harness = await startServer({ sizeBytes: 16 * MIB })
    harness.disk.copyIn(MIB, Buffer.alloc(2 * MIB, 1))
    harness.disk.clear(4 * MIB, MIB, 'zero')
    const map = JSON.parse(await run('nbdinfo', '--map', '--json', uriOf(harness))) as {
      offset: number
      type: number
    }[]
    expect(map.map(({ offset, type }) => [offset / MIB, type])).toEqual([
      [0, 3],
      [1, 0],
      [3, 3],
      [4, 2],
      [5, 3],
    ])
  })

  withNbdsh('libnbd pipelines, disconnects cleanly, and meets the errors of the document', async () => {
    const harness = await startServer({ sizeBytes: 16 * MIB, schedule: seededSchedule(11) })
    const script = `
import errno, nbd
h.set_strict_mode(0)
h.connect_uri("${uriOf(harness)}")
buffers = [nbd.Buffer.from_bytearray(bytearray([n]) * 70001) for n in range(32)]
cookies = [h.aio_pwrite(b, n * 70001) for n, b in enumerate(buffers)]
while h.aio_in_flight() > 0: h.poll(-1)
for c in cookies: assert h.aio_command_completed(c)
for n in range(32): assert h.pread(70001, n * 70001, nbd.CMD_FLAG_DF) == bytes([n]) * 70001
h.zero(70001, 0, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
h.trim(70001, 70001, nbd.CMD_FLAG_FUA)
assert h.pread(140003, 0) == bytes(140002) + bytes([2])
def fails(expected, call, *args):
    try: call(*args)
    except nbd.Error as error: assert error.errnum == expected, (error.errno, expected)
    else: assert False, expected
fails(errno.EINVAL, h.pread, 2, h.get_size() - 1)
fails(errno.ENOSPC, h.pwrite, b"ab", h.get_size() - 1)
h.flush()
h.shutdown()
`
    await run('nbdsh', '-c', script)
    expect(harness.disk.unflushedWrites).toBe(0)
  })

  withQemuIo('qemu-io writes, zeroes, discards and reads back', async () => {
    const harness = await startServer({ sizeBytes: 16 * MIB })
    const commands = [
      'write -f -P 0x11 512 3M',
      'write -z 1M 64k',
      'write -z -u 2M 64k',
      'discard 8M 1M',
      'aio_write -P 0x22 9M 1M',
      'aio_write -P 0x33 10M 1M',
      'aio_flush',
      'flush',
      'read -P 0x11 512 1048064',
      'read -P 0 1M 64k',
      'read -P 0 2M 64k',
      'read -P 0 8M 1M',
      'read -P 0x22 9M 1M',
      'read -P 0x33 10M 1M',
    ]
    const output = await run('qemu-io', '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uriOf(harness))
    expect(output).not.toMatch(/fail|error/i)
    expect(harness.disk.unflushedWrites).toBe(0)
  })

  withQemuImg('qemu-img converts to the export and finds it equal', async () => {
    const harness = await startServer({ sizeBytes: 24 * MIB, schedule: seededSchedule(13) })
    const { source } = imageOf(24 * MIB)
    await run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', source, uriOf(harness))
    expect(await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', source, uriOf(harness))).toContain('identical')
    const info = JSON.parse(await run('qemu-img', 'info', '--output=json', uriOf(harness)))
    expect(info).toMatchObject({ 'virtual-size': 24 * MIB })
  })

  withFio('fio verifies random writes at depth 32', async () => {
    const harness = await startServer({ sizeBytes: 16 * MIB, schedule: seededSchedule(17) })
    await run(
      'fio',
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${uriOf(harness)}`,
      '--rw=randwrite',
      '--bsrange=512-128k',
      '--blockalign=512',
      '--iodepth=32',
      '--verify=crc32c',
      '--verify_fatal=1',
      '--verify_state_save=0', // else it leaves a file behind
      '--size=16m',
    )
    expect(harness.server.stats.bytesRead).toBeGreaterThanOrEqual(15 * MIB)
    expect(harness.server.stats.errors).toBe(0)
  })
})

/** An image with data, zeroes and repetition, and a place for its copy; removed after the test. */
function imageOf(sizeBytes: number): { source: string; copy: string } {
  const directory = mkdtempSync(join(tmpdir(), 'nbd-image-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const image = Buffer.alloc(sizeBytes)
  for (let offset = 0; offset < sizeBytes; offset += 4096) {
    if ((offset / MIB) % 3 < 1) image.fill(`block ${offset} `, offset, offset + 4096)
  }
  const source = join(directory, 'source.raw')
  writeFileSync(source, image)
  return { source, copy: join(directory, 'copy.raw') }
}

function digest(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex')
}
