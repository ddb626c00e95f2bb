import { createHash, randomBytes } from 'node:crypto'
import { createReadStream, rmSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, expect } from 'vitest'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { Dog } from '../tools/dog.ts'
import { leaveNothing } from '../tools/leave-nothing.ts'
import { qemuImg, withQemu52Machine } from '../tools/qemu52.ts'
import { Machine, type MachineOptions } from '../tools/qemu52-machine.ts'

/**
 * Snapshots of whole machines: `savevm` puts what is in memory behind the disk, into objects of its own. `leaveNothing`
 * proves that these go with their snapshot.
 */

const MEMORY_MIB = 32
/** Over several objects of 4 MiB, since QEMU saves no pages of zeros. */
const CONTENT = { bytes: 11 << 20, address: 16 << 20 }

let collie: Collie
let machine: Machine | undefined
beforeAll(async () => {
  collie = await Collie.create('--auth=local')
  await collie.start()
})
afterAll(() => collie.dispose())
printLogOfFailures(() => collie)
leaveNothing(() => collie)
afterEach(() => machine?.kill()) // runs first, so that the lock is gone

async function turnOn(options: Partial<MachineOptions> = {}): Promise<Machine> {
  machine = await Machine.start({
    memoryMib: MEMORY_MIB,
    url: `sheepdog:${collie.info.addresses.sheep!}:vm`,
    ...options,
  })
  return machine
}

/** What a stopped machine was about to do: its registers, and all of its memory. */
async function condition(stopped: Machine): Promise<{ registers: string; memory: string }> {
  const path = collie.file('memory')
  await stopped.run(`pmemsave 0 ${MEMORY_MIB << 20} "${path}"`)
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk)
  rmSync(path)
  return { registers: await stopped.run('info registers'), memory: hash.digest('hex') }
}

/** Tags of the snapshots that hold at least the content of the memory. */
async function snapshots(running: Machine): Promise<string[]> {
  const lines = (await running.run('info snapshots')).matchAll(/^\S+ +(\w+) +([\d.]+) MiB /gm)
  return [...lines].flatMap(([, tag, mib]) => (Number(mib) * 2 ** 20 >= CONTENT.bytes ? [tag!] : []))
}

withQemu52Machine(
  'goes back to where a machine was, disk and memory, and node and QEMU may end meanwhile',
  async () => {
    await qemuImg('create', `sheepdog:${collie.info.addresses.sheep!}:vm`, '32M')
    const content = collie.file('content')
    writeFileSync(content, randomBytes(CONTENT.bytes))
    let vm = await turnOn({ content: { path: content, address: CONTENT.address } })

    await vm.io('write -P 7 0 64k')
    const atReset = await condition(vm)
    await vm.run('savevm one')
    await vm.io('write -P 9 0 64k')
    let later = atReset
    while (later.registers === atReset.registers || later.memory === atReset.memory) {
      await vm.run('cont')
      await vm.run('stop')
      later = await condition(vm)
    }
    await vm.run('savevm two')
    expect(await snapshots(vm)).toEqual(['one', 'two'])

    await vm.run('loadvm one')
    expect(await condition(vm)).toEqual(atReset)
    await vm.io('read -P 7 0 64k')
    await vm.io('write -P 5 0 64k') // belongs to no snapshot
    await vm.run('loadvm two')
    expect(await condition(vm)).toEqual(later)
    await vm.io('read -P 9 0 64k')
    await vm.run('delvm one')
    expect(await snapshots(vm)).toEqual(['two'])
    await vm.quit()

    await collie.kill('SIGKILL')
    await collie.start()
    vm = await turnOn()
    await vm.io('write -P 3 0 64k')
    await vm.run('loadvm two')
    expect(await condition(vm)).toEqual(later)
    await vm.io('read -P 9 0 64k')
    await expect(vm.run('loadvm one')).rejects.toThrow(/Error/)
    await vm.quit()
    expect((await new Dog(collie.info.addresses.sheep!).list()).map(({ tag }) => tag)).toEqual(
      expect.arrayContaining(['two', '']),
    )
  },
)
