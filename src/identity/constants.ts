/** What the one account of `auth: local` is in Keystone's terms. */
export const ROLES = ['admin', 'member', 'reader'] as const
export const DOMAIN = { id: 'default', name: 'Default' }
export const REGION = 'RegionOne'
