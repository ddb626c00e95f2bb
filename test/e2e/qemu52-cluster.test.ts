import { expect, vi } from 'vitest'
import { withEtcd } from '../tools/etcd-cluster.ts'
import { OpenQemuIo, qemuIo, withQemu52 } from '../tools/qemu52.ts'
import { skipUnless } from '../tools/require-command.ts'
import { ThreeNodes } from './three-nodes.ts'

vi.setConfig({ testTimeout: 240_000 })

const MIB = 1024 * 1024
const withBoth = withEtcd.isPossible ? withQemu52 : skipUnless('etcd is missing: apt-get install etcd-server')

withBoth('QEMU sees no error when the owner of its VDI is killed, at another node than its own', async () => {
  const three = await ThreeNodes.start()
  try {
    const [owner, home, other] = three.nodes
    await owner!.ask('vdi', 'create', 'machine', '64M')
    const url = (node = home) => `sheepdog://${node!.info.addresses.sheep}/machine`
    const qemu = await OpenQemuIo.open(url(), '-t', 'none')
    await qemu.run('write -P 1 0 4M')
    await three.untilWell(0)
    await qemu.run('aio_write -P 2 4M 4M') // makes an object
    await qemu.run('aio_write -P 3 1M 64k')
    const killed = owner!.kill('SIGKILL')
    await qemu.run('aio_write -P 4 2M 64k')
    await qemu.run('aio_write -P 5 12M 2M')
    expect(await qemu.run('aio_flush')).not.toMatch(/fail|error/i)
    await killed
    await qemu.run('read -P 2 4M 4M')
    await qemu.run('write -P 6 3M 64k')

    await owner!.start()
    await three.untilWell(1)
    await qemu.close()
    for (const node of [owner, other]) {
      await qemuIo(url(node), [
        'read -P 1 0 1M',
        'read -P 3 1M 64k',
        'read -P 4 2M 64k',
        'read -P 6 3M 64k',
        'read -P 2 4M 4M',
        'read -P 5 12M 2M',
        `read -P 0 8M ${4 * MIB}`,
      ])
    }
  } finally {
    await three.dispose()
  }
})
