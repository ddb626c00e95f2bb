import path from 'node:path'
import { expect } from 'vitest'
import { createConfiguredBackends } from '../../src/app-backends.ts'
import { loadConfig } from '../../src/config.ts'
import { CONTROL_SOCKET } from '../../src/control/messages.ts'
import { SocketControl } from '../../src/control/socket-client.ts'
import type { ConnectionInfo, VolumeDriver } from '../../src/drivers/driver.ts'
import { systemNetwork } from '../../src/runtime/network.ts'
import { VdiClient } from '../../src/vdi/client.ts'
import { createSocketTransport, SHEEP_SOCKET } from '../../src/vdi/socket-transport.ts'
import { type DriverHarness, describeDriverContract, type Initiator } from '../drivers/contract.ts'
import { initiatorOn } from '../drivers/initiator.ts'
import { Collie } from '../tools/collie.ts'
import { NbdClient } from '../tools/nbd-client.ts'

/** Room for the store to reclaim what was deleted. */
const SETTLE_MS = 30_000

/** A node of another process as a backend, made from settings as the program does it, and reached over NBD. */
async function makeHarness(): Promise<DriverHarness> {
  const node = await Collie.create('--roles=store,gateway')
  await node.start()
  const { config } = loadConfig({
    argv: [
      '--data-dir',
      node.file('service'),
      `--backends=${JSON.stringify([{ name: 'other', data_dir: node.dataDir }])}`,
    ],
    env: {},
    readFile: () => '',
  })
  const nobody = { call: () => Promise.reject(new Error('the own store is not asked')) }
  const start = async (): Promise<VolumeDriver> => {
    const [backend] = createConfiguredBackends(config, nobody)
    await backend!.driver.start()
    return backend!.driver
  }
  const control = new SocketControl(systemNetwork, path.join(node.dataDir, CONTROL_SOCKET))
  const openClient = () =>
    new VdiClient(createSocketTransport({ network: systemNetwork, address: path.join(node.dataDir, SHEEP_SOCKET) }))
  let driver = await start()
  let vdis = openClient()

  const through = async <T>(volumeId: string, readOnly: boolean, use: (initiator: Initiator) => Promise<T>) => {
    const initiator = initiatorOn(await vdis.open(await vdis.lookup(`volume-${volumeId}`), { readOnly }))
    try {
      return await use(initiator)
    } finally {
      await initiator.close()
    }
  }
  const deletedVdis = async () => {
    const { samples } = await control.call('metrics', {})
    return samples.find(({ name }) => name === 'collie_deleted_vdis')?.value
  }
  return {
    get driver() {
      return driver
    },
    read: (volumeId, offset, lengthBytes) => through(volumeId, true, (it) => it.read(offset, lengthBytes)),
    write: (volumeId, offset, data) => through(volumeId, false, (it) => it.write(offset, data)),
    copiesOf: async (volumeId) => {
      const vdi = (await vdis.listOf(`volume-${volumeId}`)).find(({ snapshotAt }) => snapshotAt === 0)!
      return { copies: vdi.copies, ...(vdi.copiesMin !== undefined && { copiesMin: vdi.copiesMin }) }
    },
    connect: connectNbd,
    restart: async () => {
      await driver.stop()
      vdis.close()
      await node.kill('SIGKILL')
      await node.start()
      vdis = openClient()
      driver = await start()
    },
    used: async () => {
      await expect.poll(deletedVdis, { timeout: SETTLE_MS }).toBe(0)
      const { sound, findings, checked } = await control.call('audit', {})
      expect(findings).toEqual([])
      expect(sound).toBe(true)
      return checked.objects!
    },
    stop: async () => {
      await driver.stop()
      vdis.close()
      control.close()
      await node.dispose()
    },
  }
}

async function connectNbd(info: ConnectionInfo): Promise<Initiator> {
  const { name, hosts, ports } = info as unknown as { name: string; hosts: string[]; ports: string[] }
  const client = await NbdClient.connect(`${hosts[0]}:${ports[0]}`, name)
  return {
    read: (offset, lengthBytes) => client.read(offset, lengthBytes),
    write: async (offset, data) => {
      await client.write(offset, data)
      await client.flush()
    },
    close: () => client.disconnect(),
  }
}

describeDriverContract('the Sheepdog driver on a node in another process', makeHarness)
