import { afterEach, vi } from 'vitest'
import { withEtcd } from '../tools/etcd-cluster.ts'
import { withQemu52Machine } from '../tools/qemu52.ts'
import { skipUnless } from '../tools/require-command.ts'
import { type MachinePlace, SavedMachine } from './saved-machine.ts'
import { ThreeNodes } from './three-nodes.ts'

vi.setConfig({ testTimeout: 300_000 })

const machine = new SavedMachine()
afterEach(() => machine.kill())

const withBoth = withEtcd.isPossible ? withQemu52Machine : skipUnless('etcd is missing: apt-get install etcd-server')

withBoth('goes back to where a machine was, by way of another node, when one of three is lost', async () => {
  const three = await ThreeNodes.start()
  try {
    const placeAt = (index: number): MachinePlace => {
      const node = three.nodes[index]!
      return { sheep: node.info.addresses.sheep!, file: (name) => node.file(name) }
    }
    await machine.saveAndGoBack(placeAt(1))
    await three.untilWell(0)
    await three.nodes[1]!.kill('SIGKILL')
    await three.until(2, ({ nodes }) => nodes.length === 2)
    await machine.goBackAgain(placeAt(2))
    await three.nodes[1]!.start()
    await three.untilWell(1)
  } finally {
    await three.dispose()
  }
})
