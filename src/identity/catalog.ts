import { createHash } from 'node:crypto'
import { REGION } from './constants.ts'

const INTERFACES = ['public', 'internal', 'admin'] as const

/**
 * What a token says about where the services are. Block storage is there under its name of today and the one that
 * cinderclient looks for, with the keys of encrypted volumes; without an image service there is one all the same, because openstackclient asks for its versions
 * before it creates a volume.
 */
export function catalogOf(origin: string, projectId: string, imageUrl: string | null) {
  const volume = `${origin}/v3/${projectId}`
  return [
    service('block-storage', 'cinder', volume),
    service('volumev3', 'cinderv3', volume),
    service('identity', 'keystone', `${origin}/identity`),
    service('key-manager', 'barbican', `${origin}/key-manager`),
    service('image', 'glance', imageUrl ?? `${origin}/image`),
  ]
}

function service(type: string, name: string, url: string) {
  return {
    id: stableId(type),
    type,
    name,
    endpoints: INTERFACES.map((kind) => ({
      id: stableId(`${type} ${kind}`),
      interface: kind,
      region: REGION,
      region_id: REGION,
      url,
    })),
  }
}

/** Clients cache by these ids, so they are the same after every start. */
function stableId(name: string): string {
  return createHash('sha256').update(name).digest('hex').slice(0, 32)
}
