import { vi } from 'vitest'
import { readOpenrc } from '../tools/cinder-api.ts'
import { requireCommand } from '../tools/require-command.ts'
import { runCommand } from '../tools/run-command.ts'
import { moveInUse } from './online-migration.ts'

vi.setConfig({ testTimeout: 600_000 })

requireCommand('openstack', 'python3-openstackclient')('openstack moves a volume in use to another store', () =>
  moveInUse((_cinder, openrc) => {
    const openstack = (...words: string[]) => runCommand(['openstack', 'volume', ...words], { env: readOpenrc(openrc) })
    return {
      retype: async (id, type) => {
        await openstack('set', '--type', type, '--retype-policy', 'on-demand', id)
      },
      migrate: async (id, host) => {
        await openstack('migrate', '--host', host, id)
      },
    }
  }),
)
