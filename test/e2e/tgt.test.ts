import { afterAll, afterEach, beforeAll, describe, expect, vi } from 'vitest'
import { Collie, freePort, printLogOfFailures } from '../tools/collie.ts'
import { Dog } from '../tools/dog.ts'
import { firstDifference } from '../tools/first-difference.ts'
import { leaveNothing } from '../tools/leave-nothing.ts'
import { runCommand } from '../tools/run-command.ts'
import { iscsiTestFailures, Tgtd, withTgt } from '../tools/tgtd.ts'

/**
 * tgt with its Sheepdog back end in front of a running node, and initiators in front of tgt. The whole of libiscsi's test
 * suite is in tgt.long.test.ts.
 */

vi.setConfig({ testTimeout: 120_000 })

const MIB = 1024 * 1024

let collie: Collie
let dog: Dog
let tgtd: Tgtd | undefined
beforeAll(async () => {
  // tgt has room for four digits.
  collie = await Collie.create(`--sheep-listen=127.0.0.1:${await freePort(2000, 10_000)}`)
  await collie.start()
  dog = new Dog(collie.info.addresses.sheep!)
})
afterAll(() => collie.dispose())
printLogOfFailures(() => collie)
leaveNothing(() => collie)
// Runs before what leaveNothing does: tgt has to let go first.
afterEach(async () => {
  await tgtd?.stop()
  tgtd = undefined
})

const overUnix = (vdi: string) => `unix:${collie.dataDir}/sock:${vdi}`
const overTcp = (vdi: string) => `tcp:${collie.info.addresses.sheep!}:${vdi}`

/** Runs the qemu-io of today on an iSCSI URL. Rejects when a command fails, also when what is read is not the pattern. */
const iscsiIo = (iscsi: string, ...commands: string[]) =>
  runCommand(['qemu-io', '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), iscsi])

const DOORS = { 'the unix socket': overUnix, TCP: overTcp }

describe.each(Object.entries(DOORS))('tgt over %s', (_title, store) => {
  withTgt('is a disk of the right size', async () => {
    await dog.create('disk', 96 * MIB)
    tgtd = await Tgtd.start()
    const unit = await tgtd.serve('sheepdog', store('disk'))
    expect(await runCommand(['iscsi-inq', unit])).toContain('Peripheral Device Type:DIRECT_ACCESS')
    expect(await runCommand(['iscsi-readcapacity16', unit])).toContain(`Total size:${96 * MIB}`)
    await expect(tgtd.serve('sheepdog', store('no-such-disk'))).rejects.toThrow()
  })

  withTgt('keeps what initiators write, of a thin VDI too', async () => {
    await dog.create('thin', 64 * MIB)
    tgtd = await Tgtd.start()
    const unit = await tgtd.serve('sheepdog', store('thin'))
    await iscsiIo(unit, 'write -P 1 0 64k', 'write -P 2 3M 6M', 'flush', 'read -P 1 0 64k', 'read -P 2 3M 6M')
    await iscsiIo(unit, 'write -P 3 4M 512', 'read -P 3 4M 512', 'read -P 2 4194816 4M', 'read -P 0 64k 1M')
    await iscsiIo(unit, 'read -P 0 40M 8M', 'read -P 0 64512k 1M')
    expect(firstDifference(await dog.read('thin', 3 * MIB, MIB), Buffer.alloc(MIB, 2))).toBeNull()
    expect(
      firstDifference(
        await dog.read('thin', 4 * MIB, 1024),
        Buffer.concat([Buffer.alloc(512, 3), Buffer.alloc(512, 2)]),
      ),
    ).toBeNull()
  })

  withTgt('reads right where an object is followed by a hole', async () => {
    await dog.create('gaps', 32 * MIB)
    await dog.write('gaps', 0, Buffer.alloc(4 * MIB, 7))
    await dog.write('gaps', 12 * MIB, Buffer.alloc(4 * MIB, 8))
    tgtd = await Tgtd.start()
    const unit = await tgtd.serve('sheepdog', store('gaps'))
    // One read across the border each: what stands before it, and what after it.
    await iscsiIo(unit, 'read -P 7 -s 0 -l 128k 3968k 256k', 'read -P 0 -s 128k -l 128k 3968k 256k')
    await iscsiIo(unit, 'read -P 0 -s 0 -l 128k 12160k 256k', 'read -P 8 -s 128k -l 128k 12160k 256k')
    await iscsiIo(unit, 'write -P 9 5M 512', 'read -P 7 -s 0 -l 64k 4032k 2M', 'read -P 0 -s 64k -l 1M 4032k 2M')
    await iscsiIo(unit, 'read -P 9 5M 512', 'read -P 0 5243392 1M')
  })

  withTgt('serves clones that share with their base', async () => {
    await dog.create('base', 16 * MIB)
    await dog.write('base', 0, Buffer.alloc(8 * MIB, 1))
    await dog.snapshot('base', 's')
    await dog.clone('base', 's', 'clone')
    await dog.write('base', 0, Buffer.alloc(8 * MIB, 2))
    tgtd = await Tgtd.start()
    const clone = await tgtd.serve('sheepdog', store('clone')) // its parser takes no snapshots
    await iscsiIo(
      clone,
      'write -P 3 1M 64k',
      'read -P 3 1M 64k',
      'read -P 1 0 1M',
      'read -P 1 2M 6M',
      'read -P 0 9M 1M',
    )
    expect(firstDifference(await dog.read('base', 0, 8 * MIB, 's'), Buffer.alloc(8 * MIB, 1))).toBeNull()
    expect(firstDifference(await dog.read('base', MIB, 4096), Buffer.alloc(4096, 2))).toBeNull()
  })
})

describe('tgt', () => {
  withTgt('goes on after a snapshot by dog', async () => {
    await dog.create('live', 16 * MIB)
    tgtd = await Tgtd.start()
    const unit = await tgtd.serve('sheepdog', overUnix('live'))
    await iscsiIo(unit, 'write -P 1 0 8M')
    await dog.snapshot('live', 's')
    await iscsiIo(unit, 'write -P 2 1M 64k', 'write -P 3 12M 64k', 'read -P 2 1M 64k', 'read -P 1 2M 6M')
    expect(firstDifference(await dog.read('live', 0, 8 * MIB, 's'), Buffer.alloc(8 * MIB, 1))).toBeNull()
    expect(firstDifference(await dog.read('live', MIB, 64 * 1024), Buffer.alloc(64 * 1024, 2))).toBeNull()
    expect(firstDifference(await dog.read('live', 12 * MIB, 64 * 1024), Buffer.alloc(64 * 1024, 3))).toBeNull()
  })

  withTgt('goes on after the loss of the node', async () => {
    await dog.create('lasting', 16 * MIB)
    tgtd = await Tgtd.start()
    const unit = await tgtd.serve('sheepdog', overUnix('lasting'))
    await iscsiIo(unit, 'write -P 1 0 8M', 'flush')
    await collie.kill('SIGKILL')
    const written = iscsiIo(unit, 'write -P 2 4M 1M', 'flush', 'read -P 2 4M 1M', 'read -P 1 0 4M') // while it is away
    await collie.start()
    await written
    expect(firstDifference(await dog.read('lasting', 4 * MIB, MIB), Buffer.alloc(MIB, 2))).toBeNull()
  })

  withTgt('serves several VDIs as units beside each other, and each VDI once', async () => {
    tgtd = await Tgtd.start()
    const units: string[] = []
    for (const name of ['beside-1', 'beside-2', 'beside-3']) {
      await dog.create(name, 16 * MIB)
      units.push(await tgtd.serve('sheepdog', overUnix(name)))
    }
    await Promise.all(units.map((unit, i) => iscsiIo(unit, `write -P ${i + 1} 1M 6M`, `read -P ${i + 1} 1M 6M`)))
    // A second unit would go on reading zeros where the first one has written since.
    await expect(tgtd.serve('sheepdog', overUnix('beside-2'))).rejects.toThrow()
    await tgtd.withdraw(units[1]!)
    const again = await tgtd.serve('sheepdog', overTcp('beside-2'))
    await iscsiIo(again, 'read -P 2 1M 6M', 'write -P 9 8M 1M', 'read -P 9 8M 1M')
    await iscsiIo(units[2]!, 'read -P 3 1M 6M', 'write -P 8 12M 1M', 'read -P 0 8M 4M', 'read -P 8 12M 1M')
  })

  withTgt('has the lock of its VDI, and lets go of it', async () => {
    await dog.create('shared', 16 * MIB)
    tgtd = await Tgtd.start()
    const unit = await tgtd.serve('sheepdog', overUnix('shared'))
    const [state] = await dog.locks()
    expect(state).toMatchObject({ lock: 'shared' })
    expect(state!.participants).toHaveLength(1)
    await tgtd.withdraw(unit)
    expect((await dog.locks()).map(({ lock }) => lock)).toEqual(['unlocked'])
  })

  withTgt('passes the tests of reading and writing', async () => {
    await dog.create('tested', 64 * MIB)
    tgtd = await Tgtd.start()
    const unit = await tgtd.serve('sheepdog', overUnix('tested'))
    for (const suite of ['Read10', 'Read16', 'Write10', 'Write16', 'WriteVerify16', 'Mandatory']) {
      expect(await iscsiTestFailures(unit, `ALL.${suite}`)).toEqual([])
    }
  })
})
