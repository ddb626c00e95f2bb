import { afterAll, beforeAll, describe, expect, vi } from 'vitest'
import type { Db } from '../../src/db/database.ts'
import type { RunningServices } from '../../src/services/create-services.ts'
import type { PythonCommands } from '../tools/python-commands.ts'
import { requireCommand } from '../tools/require-command.ts'
import { serveClients } from '../tools/served-clients.ts'

/** The clients that people use, with the credentials from openrc, against a listening server. */

vi.setConfig({ testTimeout: 600_000 }) // each command is a process and logs in

const withOpenstack = requireCommand('openstack', 'python3-openstackclient')
const withCinder = requireCommand('cinder', 'python3-cinderclient')

let services: RunningServices
let db: Db
let clients: PythonCommands
let close: () => Promise<void>

beforeAll(async () => {
  ;({ services, db, clients, close } = await serveClients())
})
afterAll(() => close())

describe('openstack', () => {
  withOpenstack('a volume and a snapshot from the first to the last command', async () => {
    const openstack = (...words: string[]) => clients.run(['openstack', ...words])
    const id = await openstack('volume', 'create', '--size', '1', '--property', 'a=b', 'v', '-f', 'value', '-c', 'id')
    await services.idle()
    expect(await openstack('volume', 'list', '--long', '-f', 'value', '-c', 'Name')).toBe('v')
    await openstack('volume', 'set', '--property', 'k=v', '--name', 'w', '--description', 'd', '--size', '2', id)
    await services.idle()
    await openstack('volume', 'unset', '--property', 'a', 'w')
    const shown = JSON.parse(await openstack('volume', 'show', 'w', '-f', 'json'))
    expect(shown).toMatchObject({ id, size: 2, status: 'available', properties: { k: 'v' }, description: 'd' })

    await openstack('volume', 'snapshot', 'create', '--volume', 'w', 's')
    await services.idle()
    await openstack('volume', 'snapshot', 'set', '--property', 'x=y', '--name', 't', 's')
    const snapshot = JSON.parse(await openstack('volume', 'snapshot', 'show', 't', '-f', 'json'))
    expect(snapshot).toMatchObject({ volume_id: id, status: 'available', size: 2, properties: { x: 'y' } })
    expect(await openstack('volume', 'snapshot', 'list', '--volume', 'w', '-f', 'value', '-c', 'Name')).toBe('t')
    await openstack('volume', 'create', '--snapshot', 't', 'from-snapshot')
    await openstack('volume', 'create', '--source', 'w', '--size', '3', 'copy')
    await services.idle()
    const list = JSON.parse(await openstack('volume', 'list', '--status', 'available', '-f', 'json'))
    expect(list.map((row: { Name: string; Size: number }) => [row.Name, row.Size]).sort()).toEqual([
      ['copy', 3],
      ['from-snapshot', 2],
      ['w', 2],
    ])
    await openstack('volume', 'snapshot', 'delete', 't')
    await services.idle()
    await openstack('volume', 'delete', 'w', 'copy')
    await openstack('volume', 'delete', '--force', 'from-snapshot')
    await services.idle()
    expect(await openstack('volume', 'list', '-f', 'value')).toBe('')
  })

  withOpenstack('services, backends, hosts, hints', async () => {
    const openstack = (...words: string[]) => clients.run(['openstack', ...words])
    const listed = async () => JSON.parse(await openstack('volume', 'service', 'list', '--long', '-f', 'json'))
    expect(await listed()).toMatchObject([
      { Binary: 'cinder-scheduler', Host: 'test', Status: 'enabled', State: 'up' },
      { Binary: 'cinder-volume', Host: 'test@memory', Zone: 'nova', Status: 'enabled', State: 'up' },
      { Binary: 'cinder-backup', Host: 'test', Zone: 'nova', Status: 'enabled', State: 'up' },
    ])
    const service = ['volume', 'service', 'set', 'test@memory', 'cinder-volume']
    await openstack(...service, '--disable', '--disable-reason', 'rest')
    expect((await listed())[1]).toMatchObject({ Status: 'disabled', 'Disabled Reason': 'rest' })
    await openstack(...service, '--enable')
    const first = await openstack('volume', 'create', '--size', '1', 'first', '-f', 'value', '-c', 'id')
    await openstack('volume', 'create', '--size', '1', '--hint', `same_host=${first}`, 'beside')
    await openstack('volume', 'create', '--size', '1', '--hint', `different_host=${first}`, 'away')
    await services.idle()
    const statuses = JSON.parse(await openstack('volume', 'list', '-f', 'json'))
    expect(statuses.map((row: { Name: string; Status: string }) => [row.Name, row.Status]).sort()).toEqual([
      ['away', 'error'],
      ['beside', 'available'],
      ['first', 'available'],
    ])
    await openstack('volume', 'host', 'set', '--disable', 'test@memory') // freezes it
    await expect(openstack('volume', 'delete', 'first')).rejects.toThrow('frozen storage backends')
    await openstack('volume', 'host', 'set', '--enable', 'test@memory')
    await openstack('volume', 'delete', 'first', 'beside', 'away')
    await services.idle()
  })

  withOpenstack('transfers, by the older name', async () => {
    const openstack = (...words: string[]) => clients.run(['openstack', ...words])
    const id = await openstack('volume', 'create', '--size', '1', 'given', '-f', 'value', '-c', 'id')
    await services.idle()
    const request = ['volume', 'transfer', 'request']
    await openstack(...request, 'create', '--name', 'first', 'given')
    await openstack(...request, 'delete', 'first')
    const offered = JSON.parse(await openstack(...request, 'create', '--name', 'gift', 'given', '-f', 'json'))
    expect(offered).toMatchObject({ name: 'gift', volume_id: id })
    expect(await openstack('volume', 'show', 'given', '-f', 'value', '-c', 'status')).toBe('awaiting-transfer')
    expect(await openstack(...request, 'list', '-f', 'value', '-c', 'Name')).toBe('gift')
    expect(JSON.parse(await openstack(...request, 'show', 'gift', '-f', 'json'))).toMatchObject({ id: offered.id })
    const wrong = openstack(...request, 'accept', '--auth-key', 'wrong', offered.id)
    await expect(wrong).rejects.toThrow('invalid auth key')
    await openstack(...request, 'accept', '--auth-key', offered.auth_key, offered.id)
    expect(await openstack('volume', 'show', 'given', '-f', 'value', '-c', 'status')).toBe('available')
    await openstack('volume', 'delete', 'given')
    await services.idle()
  })

  withOpenstack('QoS specs', async () => {
    const openstack = (...words: string[]) => clients.run(['openstack', 'volume', ...words])
    const shown = async () => JSON.parse(await openstack('qos', 'show', 'gold', '-f', 'json'))
    await openstack('type', 'create', 'golden')
    await openstack('qos', 'create', '--consumer', 'both', '--property', 'total_iops_sec=100', 'gold')
    await openstack('qos', 'set', '--property', 'read_bytes_sec=5', '--property', 'note=x', 'gold')
    await openstack('qos', 'unset', '--property', 'note', 'gold')
    await openstack('qos', 'associate', 'gold', 'golden')
    expect(await shown()).toMatchObject({
      consumer: 'both',
      associations: ['golden'],
      properties: { total_iops_sec: '100', read_bytes_sec: '5' },
    })
    expect(await openstack('qos', 'list', '-f', 'value', '-c', 'Name')).toBe('gold')
    await expect(openstack('qos', 'delete', 'gold')).rejects.toThrow()
    await openstack('qos', 'disassociate', '--volume-type', 'golden', 'gold')
    await openstack('qos', 'associate', 'gold', 'golden')
    await openstack('qos', 'disassociate', '--all', 'gold')
    expect(await shown()).not.toHaveProperty('associations')
    await openstack('qos', 'associate', 'gold', 'golden')
    await openstack('qos', 'delete', '--force', 'gold')
    await openstack('type', 'delete', 'golden')
  })

  withOpenstack('types, zones, attachments, project', async () => {
    const openstack = (...words: string[]) => clients.run(['openstack', ...words])
    await openstack('volume', 'type', 'create', '--public', '--description', 'd', 'fast')
    expect(await openstack('volume', 'type', 'list', '-f', 'value', '-c', 'Name')).toBe('fast\n__DEFAULT__')
    await openstack('volume', 'type', 'show', 'fast')
    await openstack('volume', 'type', 'delete', 'fast')
    const zones = await openstack('availability', 'zone', 'list', '--volume', '-f', 'value', '-c', 'Zone Name')
    expect(zones).toBe('nova')
    expect(await openstack('volume', 'attachment', 'list', '-f', 'value')).toBe('')
    expect(await openstack('project', 'show', 'collie', '-f', 'value', '-c', 'name')).toBe('collie')
    expect(await openstack('catalog', 'list', '-f', 'value', '-c', 'Type')).toContain('volumev3')
  })
})

describe('cinder', () => {
  withCinder('attachments', async () => {
    const cinder = (...words: string[]) => clients.run(['cinder', ...words])
    const created = await cinder('create', '--name', 'c', '1')
    const id = /\| id +\| (\S+)/.exec(created)![1]!
    await services.idle()
    const connector = [
      '--connect',
      'True',
      '--initiator',
      'iqn.2005-03.org.open-iscsi:x',
      '--ip',
      '127.0.0.1',
      '--host',
      'h',
    ]
    await cinder('attachment-create', ...connector, id)
    const attachment = /\| ([0-9a-f-]{36}) \|/.exec(await cinder('attachment-list', '--volume-id', id))![1]!
    await cinder('attachment-complete', attachment)
    expect(await cinder('show', id)).toMatch(/\| status +\| in-use/)
    expect(await cinder('attachment-show', attachment)).toMatch(/\| status +\| attached/)
    await cinder('attachment-delete', attachment)
    expect(await cinder('show', id)).toMatch(/\| status +\| available/)
    expect(await cinder('list', '--filters', 'name~=c')).toContain(id)
    await cinder('delete', id)
    await services.idle()
  })

  withCinder('backups, every command', async () => {
    const cinder = async (...words: string[]) => {
      const printed = await clients.run(['cinder', ...words])
      await services.idle()
      return printed
    }
    const idIn = (printed: string, key = 'id') => new RegExp(`\\| ${key} +\\| (\\S+)`).exec(printed)![1]!
    const id = idIn(await cinder('create', '--name', 'source', '1'))
    const about = ['--description', 'd', '--container', 'box', '--metadata', 'a=b']
    const whole = idIn(await cinder('backup-create', '--name', 'whole', ...about, id))
    const later = idIn(await cinder('backup-create', '--name', 'later', '--incremental', 'source'))
    const snapshot = idIn(await cinder('snapshot-create', '--name', 's', 'source'))
    await cinder('backup-create', '--name', 'of-snapshot', '--snapshot-id', snapshot, '--force', 'source')
    const filters = ['--status', 'available', '--volume-id', id, '--sort', 'name:desc', '--limit', '2', '--with-count']
    const listed = await cinder('backup-list', '--all-tenants', '1', ...filters)
    expect([...listed.matchAll(/available \| (\S+)/g)].map(([, name]) => name)).toEqual(['whole', 'of-snapshot'])
    expect(listed).toContain('Backup in total: 3')
    expect(await cinder('backup-list', '--filters', 'name~=later')).toContain(later)
    await cinder('backup-update', 'whole', '--name', 'first', '--description', 'e', '--metadata', 'k=v')
    expect(await cinder('backup-show', 'first')).toMatch(/\| metadata +\| \{'k': 'v'\}/)
    await cinder('backup-reset-state', '--state', 'error', 'of-snapshot')
    expect(await cinder('backup-show', 'of-snapshot')).toMatch(/\| status +\| error/)

    expect(await cinder('backup-restore', 'first', '--volume', 'source')).toContain(id)
    const placed = ['--volume-type', '__DEFAULT__', '--availability-zone', 'nova', '--name', 'placed']
    const restored = [
      idIn(await cinder('backup-restore', whole), 'volume_id'),
      idIn(await cinder('backup-restore', 'later', ...placed), 'volume_id'),
    ]
    expect(
      await db('volumes')
        .whereIn('id', [id, ...restored])
        .pluck('status'),
    ).toEqual(Array(3).fill('available'))

    await cinder('backup-delete', 'later', 'of-snapshot')
    const exported = await cinder('backup-export', whole)
    await db('backups').where({ id: whole }).delete() // as in a cloud that never had it
    await cinder('backup-import', idIn(exported, 'backup_service'), idIn(exported, 'backup_url'))
    await cinder('backup-delete', '--force', 'whole')
    expect(await db('backups')).toEqual([])
  })

  withCinder('transfers, every command, by both names', async () => {
    const id = /\| id +\| (\S+)/.exec(await clients.run(['cinder', 'create', '--name', 'given', '1']))![1]!
    await services.idle()
    for (const version of ['3.0', '3.59']) {
      const cinder = (...words: string[]) => clients.run(['cinder', '--os-volume-api-version', version, ...words])
      const offer = async (...words: string[]) => {
        const printed = await cinder('transfer-create', '--name', `by ${version}`, ...words, 'given')
        const cell = (name: string) => new RegExp(`\\| ${name} +\\| (\\S+)`).exec(printed)![1]!
        return { transfer: cell('id'), key: cell('auth_key') }
      }
      const first = await offer(...(version === '3.0' ? [] : ['--no-snapshots']))
      expect(await cinder('transfer-list')).toContain(first.transfer)
      expect(await cinder('transfer-show', first.transfer)).toMatch(new RegExp(`\\| volume_id +\\| ${id}`))
      await cinder('transfer-delete', first.transfer)
      const second = await offer()
      if (version === '3.59') {
        const listed = await cinder('transfer-list', '--all-tenants', '--sort', 'name:asc')
        expect(listed).toContain(second.transfer)
        expect(await cinder('transfer-list', '--filters', 'name=none')).not.toContain(second.transfer)
      }
      await expect(cinder('transfer-accept', second.transfer, 'wrong')).rejects.toThrow('invalid auth key')
      await cinder('transfer-accept', second.transfer, second.key)
      expect(await cinder('show', id)).toMatch(/\| status +\| available/)
    }
    await clients.run(['cinder', 'delete', id])
    await services.idle()
  })

  withCinder('QoS specs, every command', async () => {
    const cinder = (...words: string[]) => clients.run(['cinder', ...words])
    const idIn = (printed: string) => /\| ([0-9a-f-]{36}) \|/.exec(printed)![1]!
    const id = idIn(await cinder('qos-create', 'silver', 'consumer=back-end', 'write_iops_sec=7'))
    const type = idIn(await cinder('type-create', 'silvery'))
    await cinder('qos-key', id, 'set', 'a=b', 'consumer=both')
    await cinder('qos-key', id, 'unset', 'a')
    const shown = await cinder('qos-show', id)
    expect(shown).toMatch(/\| consumer +\| both/)
    expect(shown).toMatch(/\| specs +\| write_iops_sec : 7/)
    await cinder('qos-associate', id, type)
    expect(await cinder('qos-get-association', id)).toMatch(/volume_type +\| silvery/)
    await cinder('qos-disassociate', id, type)
    await cinder('qos-associate', id, type)
    await cinder('qos-disassociate-all', id)
    await cinder('qos-delete', id)
    expect(await cinder('qos-list')).not.toContain(id)
    await cinder('type-delete', type)
  })

  withCinder('pools, capabilities, log levels', async () => {
    const pools = await clients.run(['cinder', 'get-pools', '--detail'])
    expect(pools).toMatch(/\| name +\| test@memory#memory/)
    expect(pools).toMatch(/\| thin_provisioning_support +\| True/)
    expect(await clients.run(['cinder', 'get-capabilities', 'test@memory'])).toContain('Thin Provisioning')
    const levels = ['--os-volume-api-version', '3.32', 'service-get-log', '--binary', 'cinder-volume']
    expect(await clients.run(['cinder', ...levels])).toMatch(/cinder-volume +\| test@memory +\| collie +\| SILENT/)
  })

  withCinder('actions of volumes', async () => {
    const cinder = (...words: string[]) => clients.run(['cinder', ...words])
    const id = /\| id +\| (\S+)/.exec(await cinder('create', '--name', 'a', '1'))![1]!
    await services.idle()
    await cinder('set-bootable', id, 'true')
    await cinder('readonly-mode-update', id, 'True')
    await cinder('image-metadata', id, 'set', 'os=linux', 'min_disk=1')
    await cinder('image-metadata', id, 'unset', 'min_disk')
    expect(await cinder('image-metadata-show', id)).toMatch(/\| os +\| linux/)
    const shown = await cinder('show', id)
    expect(shown).toMatch(/\| bootable +\| true/)
    expect(shown).toMatch(/readonly +: True/)
    await cinder('type-create', 'gold')
    await cinder('retype', id, 'gold')
    await services.idle()
    expect(await cinder('show', id)).toMatch(/\| volume_type +\| gold/)
    await cinder('snapshot-create', '--name', 'before', id)
    await services.idle()
    await cinder('--os-volume-api-version', '3.40', 'revert-to-snapshot', 'before')
    await services.idle()
    await cinder('reset-state', '--state', 'error', '--reset-migration-status', id)
    expect(await cinder('show', id)).toMatch(/\| status +\| error/)
    await cinder('reset-state', '--state', 'available', '--attach-status', 'detached', id)
    await cinder('snapshot-delete', 'before')
    await services.idle()
    expect(await cinder('migrate', id, 'elsewhere@memory#memory')).toContain('No available service named')
    await cinder('unmanage', id)
    await services.idle()
    expect(await cinder('list')).not.toContain(id)
    await cinder('type-delete', 'gold')
  })

  withCinder('groups, every command', async () => {
    const cinder = async (...words: string[]) => {
      const printed = await clients.run(['cinder', '--os-volume-api-version', '3.38', ...words])
      await services.idle()
      return printed
    }
    const idIn = (printed: string) => /\| id +\| (\S+)/.exec(printed)![1]!
    const typeId = /\| ([0-9a-f-]{36}) \|/.exec(await cinder('group-type-create', '--description', 'd', 'plain'))![1]!
    await cinder('group-type-key', 'plain', 'set', 'consistent_group_snapshot_enabled=<is> True', 'k=v')
    await cinder('group-type-key', 'plain', 'unset', 'k')
    expect(await cinder('group-specs-list')).toMatch(/plain +\| \{'consistent_group_snapshot_enabled': '<is> True'\}/)
    await cinder('group-type-update', typeId, '--name', 'consistent', '--is-public', 'True')
    expect(await cinder('group-type-show', 'consistent')).toMatch(/\| is_public +\| True/)
    expect(await cinder('group-type-list')).toContain('default_cgsnapshot_type')

    const id = idIn(
      await cinder('group-create', '--name', 'g', '--availability-zone', 'nova', 'consistent', '__DEFAULT__'),
    )
    const inside = ['--volume-type', '__DEFAULT__', '--name', 'in', '1']
    const first = idIn(await cinder('create', '--group-id', id, ...inside))
    const second = idIn(await cinder('create', '--name', 'out', '1'))
    await cinder(
      'group-update',
      'g',
      '--name',
      'h',
      '--description',
      'e',
      '--add-volumes',
      second,
      '--remove-volumes',
      first,
    )
    expect(await cinder('list', '--group_id', id)).toMatch(/available \| out/)
    await cinder('group-update', 'h', '--add-volumes', first)
    expect(await cinder('group-list')).toMatch(/available \| h/)
    expect(await cinder('group-show', 'h', '--list-volume')).toContain(first)

    await cinder('group-snapshot-create', '--name', 's', '--description', 'd', 'h')
    expect(await cinder('group-snapshot-list', '--group-id', id)).toMatch(/available \| s/)
    expect(await cinder('group-snapshot-show', 's')).toMatch(/\| status +\| available/)
    const copies = [
      await cinder('group-create-from-src', '--group-snapshot', 's', '--name', 'of-snapshot'),
      await cinder('group-create-from-src', '--source-group', 'h', '--name', 'of-group'),
    ].map(idIn)
    for (const copy of copies) expect(await cinder('group-show', copy)).toMatch(/\| status +\| available/)
    await expect(cinder('group-enable-replication', 'h')).rejects.toThrow('is not a replication group type')
    await expect(cinder('group-list-replication-targets', 'h')).rejects.toThrow('is not a replication group type')
    await cinder('reset-state', '--type', 'group-snapshot', '--state', 'error', 's')
    await cinder('group-snapshot-delete', 's')
    await cinder('reset-state', '--type', 'group', '--state', 'error', 'h')
    await cinder('group-delete', '--delete-volumes', 'h', ...copies)
    expect(await db('volumes').whereNotNull('group_id').orWhere({ id: first })).toEqual([])

    const group = idIn(await cinder('consisgroup-create', '--name', 'c', '__DEFAULT__'))
    await cinder('create', '--consisgroup-id', group, ...inside)
    await cinder('cgsnapshot-create', '--name', 't', 'c')
    expect(await cinder('cgsnapshot-list')).toMatch(/available \| t/)
    expect(await cinder('cgsnapshot-show', 't')).toContain(group)
    await cinder('consisgroup-create-from-src', '--cgsnapshot', 't', '--name', 'd')
    await cinder('consisgroup-update', 'd', '--name', 'e')
    expect(await cinder('consisgroup-list')).toMatch(/available \| e/)
    await cinder('cgsnapshot-delete', 't')
    await cinder('consisgroup-delete', '--force', 'c', 'e')
    expect(await db('volume_groups')).toEqual([])
    await cinder('group-type-delete', 'consistent')
  })

  withCinder('what a backend holds', async () => {
    const cinder = async (...words: string[]) => {
      const printed = await clients.run(['cinder', '--os-volume-api-version', '3.38', ...words])
      await services.idle()
      return printed
    }
    const idIn = (printed: string) => /\| id +\| (\S+)/.exec(printed)![1]!
    const id = idIn(await cinder('create', '1'))
    const snapshot = idIn(await cinder('snapshot-create', id))
    await cinder('snapshot-unmanage', snapshot)
    await cinder('unmanage', id)
    expect(await cinder('manageable-list', 'test@memory')).toContain(id)
    expect(await cinder('snapshot-manageable-list', 'test@memory', '--detailed', 'True')).toContain(snapshot)
    const taken = idIn(await cinder('manage', '--name', 'taken', '--metadata', 'k=v', '--bootable', 'test@memory', id))
    const again = idIn(await cinder('snapshot-manage', '--name', 'again', 'taken', snapshot))
    expect(await cinder('show', taken)).toMatch(/\| status +\| available/)
    expect(await cinder('snapshot-show', again)).toMatch(/\| status +\| available/)
    await cinder('snapshot-delete', again)
    await cinder('delete', taken)
    expect(await db('volumes').where({ id: taken })).toEqual([])
  })

  withCinder('limits, versions, extensions, summary', async () => {
    expect(await clients.run(['cinder', 'absolute-limits'])).toContain('maxTotalVolumes')
    expect(await clients.run(['cinder', 'version-list'])).toMatch(/v3\.0 .*CURRENT.* 3\.0 .* 3\.71/)
    expect(await clients.run(['cinder', 'list-extensions'])).toContain('os-volume-actions')
    expect(await clients.run(['cinder', 'summary'])).toContain('total_count')
    expect(await clients.run(['cinder', 'type-default'])).toContain('__DEFAULT__')
  })
})
