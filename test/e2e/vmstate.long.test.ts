import { afterAll, afterEach, beforeAll, expect } from 'vitest'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { Dog } from '../tools/dog.ts'
import { leaveNothing } from '../tools/leave-nothing.ts'
import { withQemu52Machine } from '../tools/qemu52.ts'
import { type MachinePlace, SavedMachine } from './saved-machine.ts'

/** Snapshots of whole machines; `leaveNothing` proves that their memory goes with them. */

let collie: Collie
const machine = new SavedMachine()
beforeAll(async () => {
  collie = await Collie.create('--auth=local')
  await collie.start()
})
afterAll(() => collie.dispose())
printLogOfFailures(() => collie)
leaveNothing(() => collie)
afterEach(() => machine.kill()) // runs first, so that the lock is gone

const place = (): MachinePlace => ({ sheep: collie.info.addresses.sheep!, file: (name) => collie.file(name) })

withQemu52Machine(
  'goes back to where a machine was, disk and memory, and node and QEMU may end meanwhile',
  async () => {
    await machine.saveAndGoBack(place())
    await collie.kill('SIGKILL')
    await collie.start()
    await machine.goBackAgain(place())
    expect((await new Dog(collie.info.addresses.sheep!).list()).map(({ tag }) => tag)).toEqual(
      expect.arrayContaining(['two', '']),
    )
  },
)
